"""Measures of what was made: identity, image quality, pose and expression."""
