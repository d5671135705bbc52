"""From a capsule, its photo and a retargeted motion to frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from galatea.animation.composite import clean_background, compose, person_matte, photo_layer
from galatea.animation.detail import PhotoDetail, carry_detail, make_detail
from galatea.animation.mouth import PhotoMouth, is_open, teeth_arch
from galatea.animation.origins import HeadMesh
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.generator import Rendering
from galatea.eg3d.posing import Pose, neck_bend, own_angles, pose_rays
from galatea.errors import ConfigError
from galatea.images import to_uint8
from galatea.inversion.binding import PortraitGenerator, full_maps, personal_generator
from galatea.inversion.capsule import Capsule
from galatea.inversion.objective import layer_of
from galatea.morphable.actions import ARKIT_ACTIONS
from galatea.morphable.head import HeadCoefficients

_CHIN = (0.0, -0.21, 0.21)
"""Lowest point of the mean head's chin, world units."""


@dataclass(frozen=True)
class RenderSettings:
    """How frames are made.

    Attributes:
        size: pixels a side.
        resolution: size of the volume rendering; None: the generator's own. The photo's detail makes up for a
        smaller one.
        detail: share of the photo's own detail that is carried over, 0..1.
        use_neck: the body stays with the photo and the neck bends; otherwise everything turns.
        batch_size: frames rendered at once.
    """

    size: int = 512
    resolution: int | None = None
    detail: float = 1.0
    use_neck: bool = True
    batch_size: int = 4

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        if self.size < 64 or self.size % 2:
            raise ConfigError(f"render.size: expected an even number of at least 64, got {self.size}")
        if self.resolution is not None and self.resolution < 16:
            raise ConfigError(f"render.resolution: expected at least 16, got {self.resolution}")
        if not 0 <= self.detail <= 1:
            raise ConfigError(f"render.detail: expected 0 to 1, got {self.detail}")
        if self.batch_size < 1:
            raise ConfigError(f"render.batch_size: expected at least 1, got {self.batch_size}")


class PortraitAnimator:
    """Renders one portrait in any pose and expression.

    Args:
        generator: the one that the capsule was made with.
        capsule: the inverted portrait, with its edit.
        photo: its portrait crop, [-1, 1], any size.
        matte: the person in the crop, 0..1.
        settings: None takes the defaults.

    Raises:
        WeightsError: if the capsule was made with another generator.
    """

    def __init__(
        self,
        generator: PortraitGenerator,
        capsule: Capsule,
        photo: Float[Tensor, "1 3 h w"],
        matte: Float[Tensor, "1 1 h w"],
        settings: RenderSettings | None = None,
    ) -> None:
        capsule.require_generator(generator.describe().sha256)
        self.settings = settings or RenderSettings()
        self.generator = personal_generator(generator, capsule.delta)
        device = photo.device
        self.camera = capsule.camera[None].to(device)
        maps = {name: value[None].to(device) for name, value in capsule.residuals.items()}
        self.residuals: Mapping[str, Tensor] = full_maps(self.generator, maps)
        self.identity = _moved(capsule.identity, capsule.identity_offset)[None].to(device)
        self.expression = _moved(capsule.expression, capsule.expression_offset)[None].to(device).clamp(0, 1)
        self._ws = capsule.w_plus[None].to(device)
        self.ws = _moved(capsule.w_plus, capsule.w_offset)[None].to(device)
        self.caster = self.generator.caster if isinstance(self.generator, AnchoredGenerator) else None
        self.mesh = None if self.caster is None else self.caster.mesh
        with torch.no_grad():
            self._prepare(capsule, _resized(photo * 0.5 + 0.5, self.settings.size), _resized(matte, self.settings.size))

    @property
    def own_angles_deg(self) -> Float[Tensor, "3"]:
        """The photo's own yaw, pitch and roll."""
        return own_angles(self.camera)[0]

    @property
    def own_expression(self) -> Float[Tensor, "52"]:
        """The photo's own expression, with the edit; at rest where the generator has no head."""
        return self.expression[0] if self.expression.shape[1] else self.expression.new_zeros(len(ARKIT_ACTIONS))

    def _prepare(self, capsule: Capsule, photo: Tensor, matte: Tensor) -> None:
        """Render the unedited photo's view, to know what it lacks, and clear the background behind it."""
        identity, expression = capsule.identity[None].to(photo), capsule.expression[None].to(photo)
        matte = matte if self.mesh is not None else torch.ones_like(matte)
        planes = self.generator.planes(self._ws, self._head(identity, expression), self.residuals)
        rendering = self._render(planes, Pose.of_photo(self.camera), self._ws)
        layer = torch.cat(layer_of(rendering, photo.shape[-1]), dim=1)
        self.background = clean_background(photo, person_matte(matte, rendering.alpha))
        mesh, self._chin_index = None, 0
        if self.caster is not None:
            mean = self.caster.mesh.vertices(torch.zeros_like(identity), torch.zeros_like(expression))[0]
            self._chin_index = int((mean - mean.new_tensor(_CHIN)).norm(dim=-1).argmin())
            mesh = HeadMesh.of(self.caster.mesh, self.caster.surface(HeadCoefficients(identity, expression)))
        person = photo_layer(photo, self.background, matte)
        self.detail: PhotoDetail = make_detail(person, layer, self.camera, *_outlined(rendering), mesh)
        self.mouth: PhotoMouth | None = None
        if self.caster is None or mesh is None:
            return
        if self.detail.inside is not None and is_open(self.detail.inside):
            self.mouth = PhotoMouth(person, self.detail.inside, teeth_arch(self.caster.mesh, mesh.vertices))

    def frames(
        self, expression: Float[Tensor, "frames 52"], angles_deg: Float[Tensor, "frames 3"]
    ) -> Iterator[UInt8[np.ndarray, "batch size size 3"]]:
        """Yield batches of frames over the photo's background.

        Args:
            expression: coefficients to show; ignored by generators without a head.
            angles_deg: yaw, pitch, roll to show.
        """
        is_still = bool((expression == expression[:1]).all()) or self.mesh is None
        planes = self._planes(expression[:1]) if is_still else None
        for start in range(0, len(angles_deg), self.settings.batch_size):
            part = slice(start, start + self.settings.batch_size)
            yield to_uint8(self.batch(expression[part], angles_deg[part], planes) * 2 - 1)

    @torch.no_grad()
    def batch(
        self, expression: Float[Tensor, "batch 52"], angles_deg: Float[Tensor, "batch 3"], planes: Tensor | None = None
    ) -> Float[Tensor, "batch 3 size size"]:
        """Return frames of a batch of expressions and angles, 0..1; `planes` if they are known already."""
        count = len(angles_deg)
        expression = expression.to(self.camera)
        planes = self._planes(expression) if planes is None else planes
        vertices = None
        if self.caster is not None:
            vertices = self.caster.surface(HeadCoefficients(self.identity.expand(count, -1), expression))
        pose = self._pose(angles_deg.to(self.camera), vertices)
        rendering = self._render(planes, pose, self.ws)
        size = self.settings.size
        layer = torch.cat(layer_of(rendering, size), dim=1)
        if self.settings.detail > 0:
            mesh = None if self.mesh is None or vertices is None else HeadMesh.of(self.mesh, vertices)
            carried = carry_detail(self.detail, pose, *_outlined(rendering), mesh)
            layer = carried.added_to(layer, self.settings.detail)
            if self.mouth is not None and carried.inside is not None:
                shown, weight = self.mouth.seen(pose, carried.inside, size)
                layer = layer + self.settings.detail * weight * (shown - layer)
        return compose(layer, self.background)

    def _pose(self, angles_deg: Tensor, vertices: Tensor | None) -> Pose:
        pose = Pose(self.camera.expand(len(angles_deg), 25), angles_deg)
        if not self.settings.use_neck:
            return pose
        chin = pose.camera.new_tensor(_CHIN).expand(len(angles_deg), 3)
        if vertices is not None:
            chin = vertices[:, self._chin_index]
        return Pose(pose.camera, angles_deg, neck_bend(pose, chin))

    def _planes(self, expression: Tensor) -> Tensor:
        head = self._head(self.identity.expand(len(expression), -1), expression.to(self.camera))
        with torch.no_grad():
            return self.generator.planes(self.ws, head, self.residuals)

    def _render(self, planes: Tensor, pose: Pose, ws: Tensor) -> Rendering:
        resolution = self.settings.resolution or self.generator.neural_rendering_resolution
        return self.generator.render(planes, pose.camera, ws, resolution, rays=pose_rays(pose, resolution))

    def _head(self, identity: Tensor, expression: Tensor) -> Any:
        if not isinstance(self.generator, AnchoredGenerator) or self.caster is None:
            return None
        return self.caster.cast(HeadCoefficients(identity, expression), self.generator.config.plane_size)


def _outlined(rendering: Rendering) -> tuple[Tensor, Tensor]:
    """Return depth and opacity at the finest size at which outlines were drawn."""
    if rendering.image_depth is None or rendering.image_alpha is None:
        return rendering.depth, rendering.alpha
    return rendering.image_depth, rendering.image_alpha


def _moved(base: Tensor, offset: Tensor | None) -> Tensor:
    return base if offset is None else base + offset


def _resized(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False, antialias=True)
