"""Expressions for generators without a head, as Lin et al. 2022 make them: a latent for each, over the portrait.

Slow, as theirs is (an optimisation for every new expression of a clip), and the only way for imported EG3D checkpoints.
The face is what the latents show; everything else is the portrait as ever, so that hair and background do not swim.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from galatea.animation.expression_targets import PhotoFace
from galatea.animation.rendering import PortraitAnimator, RenderSettings
from galatea.eg3d.posing import pose_rays
from galatea.errors import ConfigError
from galatea.images import to_uint8
from galatea.inversion.binding import PortraitGenerator
from galatea.inversion.capsule import Capsule
from galatea.inversion.expression_pivots import Portrait, Targets, TransferSettings, find_pivots, tune_on_all
from galatea.inversion.objective import layer_of
from galatea.inversion.projector import latent_statistics
from galatea.morphable.head import HeadCoefficients, HeadModel

_SAME = 0.02
"""Expressions whose coefficients round to the same multiples of this share a latent."""
_FULL_CHANGE = 0.1
"""Change of a coefficient from the photo's own at which the face is wholly the latent's; below, the photo shows."""


class TransferAnimator(PortraitAnimator):
    """Renders one portrait of a generator without a head in any pose and expression.

    Args:
        generator: plain.
        capsule: the inverted portrait.
        photo: its portrait crop, [-1, 1].
        head: the head model as it was fitted to the photo.
        settings: of rendering.
        transfer: how expressions are found.

    Raises:
        ConfigError: if the generator has a head, and so exact expressions.
        WeightsError: if the capsule was made with another generator.
    """

    def __init__(
        self,
        generator: PortraitGenerator,
        capsule: Capsule,
        photo: Float[Tensor, "1 3 h w"],
        head: HeadCoefficients,
        settings: RenderSettings,
        transfer: TransferSettings,
    ) -> None:
        if generator.is_anchored:
            raise ConfigError("animate.method: paper is for generators without a head; this one has exact expressions")
        super().__init__(generator, capsule, photo, torch.ones_like(photo[:, :1]), settings)
        self.transfer = transfer
        size = generator.img_resolution
        small = F.interpolate(photo, (size, size), mode="bilinear", antialias=True)
        model = HeadModel.load(photo.device)
        self.face = PhotoFace(small, self.camera, model, head)
        for parameter in self.generator.parameters():
            parameter.requires_grad_(False)
        deviation = float(latent_statistics(generator).deviation)
        self._portrait = Portrait(self.generator, self.ws, self.camera, deviation)

    @property
    def own_expression(self) -> Float[Tensor, "52"]:
        """The photo's own expression."""
        return self.face.head.expression[0]

    def frames(
        self, expression: Float[Tensor, "frames 52"], angles_deg: Float[Tensor, "frames 3"]
    ) -> Iterator[UInt8[np.ndarray, "batch size size 3"]]:
        """Yield batches of frames over the photo's background; all latents are found before the first."""
        expression = expression.to(self.camera)
        shown, number = _distinct(expression)
        drawn = self.face.targets(shown)
        targets = Targets(drawn.image, drawn.known)
        with torch.enable_grad():
            pivots = find_pivots(self._portrait, targets, self.transfer)
            tuned = tune_on_all(self._portrait, pivots, targets, self.transfer)
        with torch.no_grad():
            still = self._planes(expression[:1])
            for start in range(0, len(angles_deg), self.settings.batch_size):
                part = slice(start, start + self.settings.batch_size)
                portrait = self.batch(expression[part], angles_deg[part], still)
                face, share = self._faces(tuned, pivots[number[part]], expression[part], angles_deg[part])
                yield to_uint8((portrait + share * (face - portrait)) * 2 - 1)

    def _faces(
        self, tuned: PortraitGenerator, ws: Tensor, expression: Tensor, angles_deg: Tensor
    ) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch 1 size size"]]:
        """Return what the latents show (0..1), and how much of it is to be seen."""
        pose = self._pose(angles_deg.to(self.camera), None)
        resolution = self.settings.resolution or tuned.neural_rendering_resolution
        rendering = tuned.render(tuned.planes(ws), pose.camera, ws, resolution, rays=pose_rays(pose, resolution))
        colour, _ = layer_of(rendering, self.settings.size)
        change = (expression - self.own_expression).abs().amax(1).div(_FULL_CHANGE).clamp_max(1)
        share = self.face.seen_face(expression, pose, self.settings.size) * change[:, None, None, None]
        return colour.clamp(0, 1), share


def _distinct(expression: Float[Tensor, "frames 52"]) -> tuple[Float[Tensor, "distinct 52"], Tensor]:
    """Return the expressions that differ, in the order of their first frames, and each frame's number among them."""
    keys = [tuple(row) for row in (expression / _SAME).round().int().tolist()]
    first: dict[tuple[int, ...], int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    order = {key: number for number, key in enumerate(first)}
    return expression[list(first.values())], torch.tensor([order[key] for key in keys], device=expression.device)
