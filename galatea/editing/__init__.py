"""Edits of a portrait's appearance in the latent space, the head's identity and its expression."""
