"""How the built-in weights are made; not needed to use them."""
