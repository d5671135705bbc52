"""Volume rendering around a head surface that planes carry: point features, signed distances, guided samples.

The planes of an anchored head hold, besides features, the surface's depth along their axis. A point lies inside the
head if it lies behind the surface in every view, so the largest of the views' signed distances is a good distance to
the head; density starts from it (VolSDF, Yariv et al. 2021, equation 2, with a logistic in place of the Laplace CDF),
and ray samples are spent around its zero (where others spend a second pass).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from galatea.eg3d.carry import VIEWS
from galatea.eg3d.lookup import read_bilinear
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.eg3d.rays import Rays
from galatea.errors import ConfigError

MASK, DEPTH, FACING = 3, 4, 5
NUM_SURFACE_CHANNELS = 6
"""Surface channels of a view: 0-2 colour times mask, 3 mask, 4 depth, 5 normal towards the viewer times mask."""
_NUM_DISTANCE_INPUTS = 9
"""Coarse and fine signed distances and nearness, for the three views read at a point."""
_NEARNESS = 0.05
"""Distance from a view's surface (half boxes) at which its colour counts for 1/e."""
_SPARE, _SPARE_NEARNESS = 3e-3, 0.2
"""Weight and reach (half boxes) of colours where no view sees the surface well."""
_MIDLINE = 0.06
"""Side planes fade in over this |x| (half boxes), so that left and right meet without a seam."""


@dataclass(frozen=True)
class Box:
    """The cube that the planes cover, in world units."""

    centre: tuple[float, float, float] = (0.0, 0.02, 0.03)
    half: float = 0.42

    def enter(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Return points in half boxes: [-1, 1] inside."""
        return (points - torch.tensor(self.centre, device=points.device, dtype=points.dtype)) / self.half


@dataclass(frozen=True)
class SurfaceSampling:
    """How rays are sampled; lengths in world units.

    Attributes:
        num_search: steps of the search for the surface (distances only, cheap).
        num_surface: decoded samples around the surface.
        num_free: decoded samples in front of it, or along the whole ray where there is no surface.
        surface_width: half the length around the surface that `num_surface` samples cover.
        hair_reach: how far in front of the surface free samples start.
    """

    num_search: int = 24
    num_surface: int = 5
    num_free: int = 8
    surface_width: float = 0.012
    hair_reach: float = 0.3

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: naming the field.
        """
        for name in ("num_search", "num_surface", "num_free"):
            if getattr(self, name) < 2:
                raise ConfigError(f"{name}: expected at least 2, got {getattr(self, name)}")
        for name in ("surface_width", "hair_reach"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: expected a positive length, got {getattr(self, name)}")


@dataclass(frozen=True)
class ViewPlanes:
    """Planes of all `VIEWS` of a batch of heads, channels last so that they are tables of texels.

    Attributes:
        surface: colour times mask, mask, depth and facing (`NUM_SURFACE_CHANNELS`), at twice the size of the features.
        features: what the fusion painted.
    """

    surface: Float[Tensor, "batch views size2 size2 6"]
    features: Float[Tensor, "batch views size size channels"]

    def pack(self) -> Float[Tensor, "batch views channels size size"]:
        """Return one tensor: the surface, each 2x2 texels side by side as channels, then the features."""
        folded = F.pixel_unshuffle(self.surface.permute(0, 1, 4, 2, 3), 2)
        return torch.cat([folded, self.features.permute(0, 1, 4, 2, 3)], dim=2)

    @classmethod
    def unpack(cls, planes: Float[Tensor, "batch views channels size size"]) -> ViewPlanes:
        """Undo `pack`.

        Raises:
            ValueError: if the tensor cannot be one of `pack`.
        """
        folded = 4 * NUM_SURFACE_CHANNELS
        if planes.ndim != 5 or planes.shape[1] != len(VIEWS) or planes.shape[2] <= folded:
            raise ValueError(
                f"planes: expected (batch, {len(VIEWS)}, > {folded}, size, size), got {tuple(planes.shape)}"
            )
        surface = F.pixel_shuffle(planes[:, :, :folded], 2)
        return cls(surface.permute(0, 1, 3, 4, 2), planes[:, :, folded:].permute(0, 1, 3, 4, 2))


@dataclass(frozen=True)
class SurfaceTables:
    """Planes as tables of texels, ready to be read at points; views follow each other in the order of `VIEWS`."""

    surface: Float[Tensor, "texels2 6"]
    features: Float[Tensor, "texels channels"]
    geometry: Float[Tensor, "texels2 2"]
    size: int
    num_heads: int

    @classmethod
    def of(cls, planes: ViewPlanes) -> SurfaceTables:
        """Lay planes out as tables."""
        num_heads, _, size, _, channels = planes.features.shape
        surface = planes.surface.reshape(-1, NUM_SURFACE_CHANNELS)
        geometry = surface.detach()[:, MASK : DEPTH + 1].contiguous()
        return cls(surface, planes.features.reshape(-1, channels), geometry, size, num_heads)


def read_views(
    table: Float[Tensor, "texels channels"], q: Float[Tensor, "batch n 3"], size: int, num_heads: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the front, side (of the point's own half) and top planes hold at points in half boxes."""
    x, y, z = ((q * 0.5 + 0.5) * size - 0.5).flatten(0, 1).unbind(-1)
    plane = size * size
    head = torch.zeros_like(x, dtype=torch.long)
    if num_heads > 1:
        head = torch.arange(num_heads, device=q.device).repeat_interleave(q.shape[1]) * (len(VIEWS) * plane)
    side = head + (1 + (q[..., 0].detach().flatten() < 0).long()) * plane
    reads = (((x, y), head), ((z, y), side), ((x, z), head + 3 * plane))
    front, aside, top = (
        read_bilinear(table, places, (size, size), start).view(*q.shape[:2], -1) for places, start in reads
    )
    return front, aside, top


def view_distances(
    masks: tuple[Tensor, Tensor, Tensor],
    depths: tuple[Tensor, Tensor, Tensor],
    q: Float[Tensor, "batch n 3"],
    size: int,
) -> Float[Tensor, "batch n 3"]:
    """Return signed distances (half boxes, negative inside) along each view, outlines included.

    Where a view's bilinear mask falls under one half, the point is outside its outline, by about that part of a texel.
    """
    outline = [(0.5 - mask) * (2.0 / size) for mask in masks]
    return torch.stack([torch.maximum(a - d, o) for a, d, o in zip(_along(q), depths, outline, strict=True)], dim=-1)


def _along(q: Float[Tensor, "batch n 3"]) -> tuple[Tensor, Tensor, Tensor]:
    """Return coordinates of points towards the front, the side (of the point's own half) and the top view."""
    return q[..., 2], q[..., 0].abs(), q[..., 1]


def surface_distances(
    views: tuple[Tensor, Tensor, Tensor], q: Float[Tensor, "batch n 3"], tables: SurfaceTables
) -> Float[Tensor, "batch n 3"]:
    """Return the views' signed distances from surface channels read at points."""
    return view_distances(_channel(views, MASK), _channel(views, DEPTH), q, 2 * tables.size)


def head_distance(tables: SurfaceTables, q: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n"]:
    """Return the distance to the head (half boxes, negative inside), without gradient."""
    views = read_views(tables.geometry, q, 2 * tables.size, tables.num_heads)
    return view_distances(_channel(views, 0), _channel(views, 1), q, 2 * tables.size).amax(-1)


def box_interval(rays: Rays, box: Box) -> tuple[Float[Tensor, "batch rays"], Float[Tensor, "batch rays"]]:
    """Return where rays enter and leave the box (world units along the ray); equal where they miss it."""
    origin = box.enter(rays.origins)
    step = rays.directions / box.half
    step = torch.where(step.abs() < 1e-9, torch.full_like(step, 1e-9), step)
    first, second = (-1 - origin) / step, (1 - origin) / step
    near = torch.minimum(first, second).amax(-1).clamp_min(0)
    return near, torch.maximum(torch.maximum(first, second).amin(-1), near)


@torch.no_grad()
def find_surface(
    tables: SurfaceTables, rays: Rays, box: Box, num_steps: int
) -> tuple[Float[Tensor, "batch rays"], Bool[Tensor, "batch rays"], Tensor, Tensor]:
    """March rays to the head: depth of the first crossing (or of the closest approach), whether it hits, near, far."""
    near, far = box_interval(rays, box)
    fraction = (torch.arange(num_steps, device=near.device, dtype=near.dtype) + 0.5) / num_steps
    depths = near[..., None] + (far - near)[..., None] * fraction
    q = box.enter(rays.origins[..., None, :] + depths[..., None] * rays.directions[..., None, :])
    distance = head_distance(tables, q.flatten(1, 2)).view(depths.shape)
    distance = torch.where((far - near)[..., None] > 1e-6, distance, torch.ones_like(distance))
    inside = distance < 0
    is_hit = inside.any(-1)
    first = inside.to(torch.uint8).argmax(-1)
    closest = torch.where(is_hit, first, distance.argmin(-1))[..., None]
    before = (closest - 1).clamp_min(0)
    d0, d1 = distance.gather(-1, before)[..., 0], distance.gather(-1, closest)[..., 0]
    t0, t1 = depths.gather(-1, before)[..., 0], depths.gather(-1, closest)[..., 0]
    crossing = t0 + (t1 - t0) * (d0 / (d0 - d1).clamp_min(1e-6)).clamp(0, 1)
    return torch.where(is_hit, crossing, t1), is_hit, near, far


@torch.no_grad()
def guided_depths(
    tables: SurfaceTables, rays: Rays, box: Box, sampling: SurfaceSampling, generator: torch.Generator | None
) -> tuple[Float[Tensor, "batch rays samples"], Float[Tensor, "batch rays"]]:
    """Return sorted sample depths and the far end of every ray; a generator jitters within strata."""
    surface, is_hit, near, far = find_surface(tables, rays, box, sampling.num_search)
    start = torch.where(is_hit, torch.maximum(near, surface - sampling.hair_reach), near)
    stop = torch.where(is_hit, torch.maximum(surface, start), far)
    share = _strata(surface, sampling.num_free, generator)
    # In front of the surface hair is mostly short: samples crowd towards it.
    share = torch.where(is_hit[..., None], 1 - (1 - share).square(), share)
    free = start[..., None] + (stop - start)[..., None] * share
    around = surface[..., None] + sampling.surface_width * (2 * _strata(surface, sampling.num_surface, generator) - 1)
    depths = torch.cat([free, torch.minimum(torch.maximum(around, near[..., None]), far[..., None])], -1)
    return depths.sort(-1).values, torch.where(is_hit, torch.minimum(surface + 4 * sampling.surface_width, far), far)


def _strata(like: Tensor, count: int, generator: torch.Generator | None) -> Float[Tensor, "batch rays count"]:
    if generator is None:
        jitter = torch.full((*like.shape, count), 0.5, device=like.device, dtype=like.dtype)
    else:
        jitter = torch.rand((*like.shape, count), generator=generator, device=like.device, dtype=like.dtype)
    return (torch.arange(count, device=like.device, dtype=like.dtype) + jitter) / count


class SurfaceDecoder(nn.Module):
    """From plane features and signed distances to colour, density and features for the super-resolution.

    Args:
        num_features: features of a view plane, without the surface channels.
        num_outputs: features that come out besides colour.
        hidden_dim: width of the hidden layers.
    """

    def __init__(self, num_features: int, num_outputs: int, hidden_dim: int = 48) -> None:
        super().__init__()
        self.num_outputs = num_outputs
        self.fc0 = FullyConnectedLayer(num_features + _NUM_DISTANCE_INPUTS + 4, hidden_dim, "lrelu")
        self.fc1 = FullyConnectedLayer(hidden_dim, hidden_dim, "lrelu")
        self.out = FullyConnectedLayer(hidden_dim, 3 + 3 + num_outputs)
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.weight[3:6] = 0
        self.log_sharpness = nn.Parameter(torch.tensor(5.0))

    def forward(
        self, tables: SurfaceTables, q: Float[Tensor, "batch n 3"]
    ) -> tuple[Float[Tensor, "batch n channels"], Float[Tensor, "batch n"]]:
        """Return colour (in [0,1], not clamped) followed by features, and density per half box, at points."""
        views = read_views(tables.surface, q, 2 * tables.size, tables.num_heads)
        front, side, top = read_views(tables.features, q, tables.size, tables.num_heads)
        fade = side_fade(q)
        distances = surface_distances(views, q, tables)
        base, near, confidence = surface_colour(views, q, distances)
        features = front + side * fade + top
        inputs = [features, torch.tanh(4 * distances), torch.tanh(30 * distances), near]
        x = torch.cat([*inputs, base, confidence], dim=-1)
        raw = self.out(self.fc1(self.fc0(x))).float()
        colour = base * torch.sigmoid(raw[..., :1] + 3.0) + raw[..., 3:6]
        sharpness = self.log_sharpness.exp()
        offset = 0.1 * torch.tanh(raw[..., 1])
        density = sharpness * torch.sigmoid(-(distances.amax(-1) + offset) * sharpness) + 30 * F.softplus(
            raw[..., 2] - 6.0
        )
        return torch.cat([colour, raw[..., 6:]], dim=-1), density


def side_fade(q: Float[Tensor, "batch n 3"]) -> Float[Tensor, "batch n 1"]:
    """Return how much side planes count at points: nothing on the midline, where left meets right."""
    return (q[..., :1].abs() / _MIDLINE).clamp(0, 1)


def _channel(views: tuple[Tensor, Tensor, Tensor], index: int) -> tuple[Tensor, Tensor, Tensor]:
    front, side, top = (view[..., index] for view in views)
    return front, side, top


def surface_colour(
    views: tuple[Tensor, Tensor, Tensor], q: Float[Tensor, "batch n 3"], distances: Float[Tensor, "batch n 3"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the mesh's colour at points, blended from the views that see it best, nearness, and its confidence."""
    masks = torch.stack(_channel(views, MASK), -1)
    facing = (torch.stack(_channel(views, FACING), -1) / masks.clamp_min(0.05)).clamp(0, 1)
    near = torch.exp(-(distances / _NEARNESS).square().clamp_max(20))
    # Outlines do not count here: deep inside along a view, its colour belongs to another place of the head.
    apart = torch.stack([a - d for a, d in zip(_along(q), _channel(views, DEPTH), strict=True)], -1)
    fade = torch.cat([torch.ones_like(q[..., :1]), side_fade(q), torch.ones_like(q[..., :1])], -1)
    weight = masks * torch.exp(-(apart / _NEARNESS).square().clamp_max(20)) * facing.square() * fade
    total = weight.sum(-1, keepdim=True)
    # Steps of the height fields (lip corners, ears, jaw) are seen well by no view: the nearest one serves, not black.
    spare = masks * torch.exp(-(apart / _SPARE_NEARNESS).square().clamp_max(20)) * (fade + 1e-3) * _SPARE
    colours = torch.stack([view[..., :3] for view in views], -2) / masks[..., None].clamp_min(0.05)
    blended = weight + spare
    base = (blended[..., None] * colours).sum(-2) / (blended.sum(-1, keepdim=True) + 1e-6)
    return base, near, total / (total + 1e-3)


def composite(
    values: Float[Tensor, "batch rays samples channels"],
    density: Float[Tensor, "batch rays samples"],
    depths: Float[Tensor, "batch rays samples"],
    ends: Float[Tensor, "batch rays"],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return values times opacity, alpha (both summed along rays) and expected depth (NeRF, equation 3)."""
    steps = torch.diff(torch.cat([depths, torch.maximum(ends[..., None], depths[..., -1:])], -1), dim=-1)
    optical = density * steps
    alpha = 1 - torch.exp(-optical)
    before = F.pad(torch.cumsum(optical, -1)[..., :-1], (1, 0))
    weights = alpha * torch.exp(-before)
    total = weights.sum(-1, keepdim=True).clamp_max(1)
    depth = ((weights * depths).sum(-1, keepdim=True) + 1e-6 * ends[..., None]) / (total + 1e-6)
    return (weights[..., None, :] @ values)[..., 0, :], total, depth
