"""From a photo to a portrait capsule: latent projection, pivotal tuning, storage."""
