"""What an inversion minimises: one number per portrait from a rendering and its target."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.generator import Rendering
from galatea.errors import ConfigError
from galatea.inversion.target import InversionTarget
from galatea.losses import gradient_loss, l1_loss, matte_loss, structure_loss


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; see `galatea.losses`."""

    l1: float = 1.0
    structure: float = 0.25
    gradient: float = 1.0
    matte: float = 1.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ConfigError(f"losses.{field.name}: expected at least 0, got {getattr(self, field.name)}")


def layer_of(rendering: Rendering, size: int) -> tuple[Float[Tensor, "b 3 s s"], Float[Tensor, "b 1 s s"]]:
    """Return a rendering as colour times opacity and opacity, 0..1, at `size`.

    Generators with an opacity at image size (`image_alpha`) give plain colours; the others render over black. At the
    size of the volume rendering that rendering itself is taken, so that coarse steps need no super-resolution.
    """
    is_raw = rendering.image_raw.shape[-1] == size
    colour = (rendering.image_raw if is_raw else rendering.image) * 0.5 + 0.5
    alpha = rendering.alpha if is_raw or rendering.image_alpha is None else rendering.image_alpha
    if rendering.image_alpha is not None:
        colour = colour * alpha
    return _resized(colour, size), _resized(alpha, size)


def shown(rendering: Rendering, background: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b 3 s s"]:
    """Return a rendering over a background, both in [-1, 1]."""
    colour, alpha = layer_of(rendering, background.shape[-1])
    return (colour + (1 - alpha) * (background * 0.5 + 0.5)) * 2 - 1


@dataclass(frozen=True)
class Objective:
    """The terms that compare a rendering with a photo.

    Attributes:
        weights: of the terms.
    """

    weights: LossWeights

    def __call__(self, rendering: Rendering, target: InversionTarget) -> Float[Tensor, "batch"]:
        """Return the loss of every portrait of a batch."""
        image = shown(rendering, target.background)
        weights = self.weights
        loss = weights.l1 * l1_loss(image, target.image, target.weight)
        loss = loss + weights.structure * structure_loss(image, target.image, target.weight)
        loss = loss + weights.gradient * gradient_loss(image, target.image, target.weight)
        return loss + weights.matte * matte_loss(rendering.alpha, target.matte)


def _resized(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    if maps.shape[-1] > size:
        return F.interpolate(maps, (size, size), mode="area")
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
