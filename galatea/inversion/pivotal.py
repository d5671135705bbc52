"""Pivotal tuning: what the latent cannot say about a person goes into residual maps, or into low-rank weight changes.

Roich et al. 2022 (arXiv 2106.05744) tune the whole generator around the projected latent. A generator that is
anchored on the head mesh has a better place: its texture lives in the head's UV space, so additive maps there are
seen from every side and move with the expression. Generators without such maps get low-rank weight changes. Side
views are held to what the pivot showed there, so that a photo cannot be explained by a painted board.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.generator import Rendering
from galatea.eg3d.posing import own_angles, turned_camera
from galatea.errors import ConfigError
from galatea.inversion.binding import Head, PortraitGenerator, TunedView, View, cast_once, full_maps, mesh_of, new_delta
from galatea.inversion.hidden_texture import TextureVisibility, texture_visibility
from galatea.inversion.objective import Objective
from galatea.inversion.open_maps import open_planes, open_texture
from galatea.inversion.optimisation import Group, minimise
from galatea.inversion.projector import Projection
from galatea.inversion.target import InversionTarget
from galatea.losses import total_variation

_SIDE_VIEWS = ((-35.0, 0.0), (35.0, 0.0), (0.0, 20.0))
"""Turns (yaw, pitch in degrees) away from the photo's view that are held to the pivot's shape."""


@dataclass(frozen=True)
class TuningConfig:
    """How the pivot is tuned.

    Attributes:
        num_steps: optimisation steps.
        resolution: size of the volume rendering; None: the generator's own. Images are compared at this size where
            residual maps are tuned, and behind the super-resolution where weights are.
        map_limit: largest side of residual maps; larger ones are optimised at it and enlarged. Texels that are finer
            than the compared images would only pick up noise.
        map_lr: peak learning rate of residual maps of the texture.
        hair_lr: the same for maps of hair and clothes, which start further from what they should be.
        map_size: weight of the mean square of residual maps.
        map_roughness: weight of their total variation.
        delta_rank: rank of weight changes, where a generator has no residual maps.
        delta_lr: their learning rate.
        side_weight: weight of the side views.
        side_resolution: their size.
    """

    num_steps: int = 32
    resolution: int | None = 64
    map_limit: int = 64
    map_lr: float = 0.06
    hair_lr: float = 0.12
    map_size: float = 0.05
    map_roughness: float = 0.05
    delta_rank: int = 4
    delta_lr: float = 2e-3
    side_weight: float = 1.0
    side_resolution: int = 32

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        for name in ("map_lr", "hair_lr", "delta_lr", "map_size", "map_roughness", "side_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"tuning.{name}: expected at least 0, got {getattr(self, name)}")
        for name, low in (("num_steps", 0), ("delta_rank", 1), ("side_resolution", 8), ("map_limit", 4)):
            if getattr(self, name) < low:
                raise ConfigError(f"tuning.{name}: expected at least {low}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Tuning:
    """What tuning found, for a batch of portraits.

    Attributes:
        residuals: maps with a leading batch axis.
        delta: weight changes; of one portrait.
        side_change: how much the opacity of side views differs from the pivot's (mean absolute).
    """

    residuals: Mapping[str, Tensor]
    delta: Mapping[str, Tensor]
    side_change: Float[Tensor, "batch"]


class _SideViews:
    """Opacity and depth that the pivot shows from the sides, and how far a tuned portrait is from them."""

    def __init__(self, view: TunedView, camera: Tensor, projection: Projection, head: Head, size: int) -> None:
        own = own_angles(camera)
        turns = own.new_tensor([(*turn, 0.0) for turn in _SIDE_VIEWS])
        self.views = [View(turned_camera(camera, own + turn), size) for turn in turns]
        with torch.no_grad():
            self.pivots = view(projection.w_plus, head, projection.residuals, self.views)

    def difference(self, index: int, rendering: Rendering) -> Float[Tensor, "batch"]:
        """Return the difference in opacity, and in depth where the pivot is opaque."""
        pivot = self.pivots[index]
        depth = ((rendering.depth - pivot.depth).abs() * pivot.alpha).mean((1, 2, 3))
        difference: Tensor = (rendering.alpha - pivot.alpha).abs().mean((1, 2, 3)) + depth
        return difference


def tune(
    generator: PortraitGenerator,
    target: InversionTarget,
    projection: Projection,
    objective: Objective,
    config: TuningConfig,
    seed: int = 0,
) -> Tuning:
    """Tune a batch of portraits around their projected latents.

    Raises:
        ConfigError: if a generator without residual maps is given more than one portrait.
        FitError: if the optimisation diverges.
    """
    batch, device = len(projection.w_plus), projection.w_plus.device
    shapes = generator.residual_shapes
    if not shapes and batch != 1:
        raise ConfigError(f"tuning: weight changes belong to one portrait, got a batch of {batch}; use batch_size 1")
    view = TunedView(generator)
    size = config.resolution or generator.neural_rendering_resolution
    scaled = target.at(size if shapes else generator.img_resolution)
    head = cast_once(generator, target.head)
    # One tensor a portrait: damping looks at whole tensors, and portraits shall not influence each other.
    tuned = {name: shape for name, shape in shapes.items() if name not in projection.residuals}
    maps = {name: _new_maps(name, shape, config.map_limit, batch, device) for name, shape in tuned.items()}
    seen = _visibility(generator, target, maps)
    masks = {name: _open(generator, name, values[0].shape).to(device) for name, values in maps.items()}

    def masked() -> dict[str, Tensor]:
        residuals = {name: torch.stack(values) for name, values in maps.items()}
        residuals |= {name: visibility.complete(residuals[name]) for name, visibility in seen.items()}
        return {name: value * masks[name] for name, value in residuals.items()} | dict(projection.residuals)

    delta = {} if shapes else {k: v.requires_grad_() for k, v in new_delta(generator, config.delta_rank, seed).items()}
    sides = _SideViews(view, target.camera, projection, head, config.side_resolution)

    def loss(step: int) -> Tensor:
        views = [View(target.camera, size)]
        index = step % len(sides.views)
        if config.side_weight:
            views.append(sides.views[index])
        residuals = masked()
        renderings = view.with_delta(delta, projection.w_plus, head, full_maps(generator, residuals), views)
        total = objective(renderings[0], scaled)
        for name in maps:
            value = residuals[name]
            total = total + config.map_size * value.square().flatten(1).mean(1)
            total = total + config.map_roughness * total_variation(value)
        if config.side_weight:
            total = total + config.side_weight * sides.difference(index, renderings[1])
        return total

    rates = {name: config.map_lr if _is_texture(name) else config.hair_lr for name in maps}
    groups = [Group(values, rates[name], is_damped=True) for name, values in maps.items()]
    groups += [Group(list(delta.values()), config.delta_lr)] if delta else []
    minimise(loss, groups, config.num_steps)
    with torch.no_grad():
        residuals = masked()
        found = view.with_delta(delta, projection.w_plus, head, full_maps(generator, residuals), sides.views)
        changes = [(a.alpha - b.alpha).abs().mean((1, 2, 3)) for a, b in zip(found, sides.pivots, strict=True)]
    return Tuning(
        {name: value.detach() for name, value in residuals.items()},
        {name: value.detach() for name, value in delta.items()},
        torch.stack(changes).mean(0),
    )


def _new_maps(name: str, shape: tuple[int, ...], limit: int, batch: int, device: torch.device) -> list[Tensor]:
    """Return maps of zeros, one a portrait, no larger than `limit`; half of it where they hold hair, not a texture."""
    channels, *sides = shape
    limit = limit if _is_texture(name) else limit // 2
    size = (channels, *(min(side, limit) for side in sides))
    return [torch.zeros(size, device=device).requires_grad_() for _ in range(batch)]


def _open(generator: PortraitGenerator, name: str, shape: tuple[int, ...]) -> Tensor:
    """Return 1 where the photo may change a map, 0 where it may not."""
    channels, size = shape[0], shape[-1]
    if _is_texture(name):
        return open_texture(mesh_of(generator), size)
    if name == "static" and isinstance(generator, AnchoredGenerator):
        planes = open_planes(generator, size)
        return planes.expand(-1, channels // len(planes), -1, -1).flatten(0, 1)
    return torch.ones(1)


def _visibility(
    generator: PortraitGenerator, target: InversionTarget, maps: Mapping[str, list[Tensor]]
) -> dict[str, TextureVisibility]:
    """Return how well the photos see the texels of every map of the texture."""
    mesh = mesh_of(generator)
    if mesh is None or target.head is None:
        return {}
    sizes = {name: values[0].shape[-1] for name, values in maps.items() if _is_texture(name)}
    return {name: texture_visibility(mesh, target.head, target.camera, size) for name, size in sizes.items()}


def _is_texture(name: str) -> bool:
    return name.startswith("texture")
