"""Measurements of speed, memory and scaling, with committed results."""
