"""Is it still the same person: similarity of identity embeddings."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor


class Embedder(Protocol):
    """What a face pack offers for identity (`galatea.faces.packs.FacePack`)."""

    def embed(self, crops: Tensor) -> Tensor:
        """Return one embedding a portrait crop."""

    def identity_similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Return similarities of embeddings, in the pack's own documented scale (1 = the same picture)."""


def identity_similarity(
    pack: Embedder, images: Float[Tensor, "batch 3 h w"], references: Float[Tensor, "one_or_batch 3 h w"]
) -> Float[Tensor, "batch"]:
    """Return how similar the persons in portrait crops are to those in reference crops.

    Args:
        pack: embeds faces.
        images: portrait crops in [-1, 1].
        references: one crop for all images, or one each.
    """
    similarity: Tensor = pack.identity_similarity(pack.embed(images), pack.embed(references))
    return similarity
