"""The head model: its shape and expression space, and how it is fitted to photos."""
