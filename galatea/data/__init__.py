"""Weights and tables that ship with Galatea."""
