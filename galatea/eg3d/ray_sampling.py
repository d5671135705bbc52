"""Where rays are sampled: options, a first pass in strata, and a second one where the first found something."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.rays import Rays
from galatea.errors import ConfigError

PDF_FLOOR = 0.01
"""Added to the smoothed weights before fine sampling (Mip-NeRF, section 3.3)."""
PDF_EPS = 1e-5


@dataclass(frozen=True)
class RenderingOptions:
    """How rays are sampled. Defaults are EG3D's FFHQ configuration.

    Attributes:
        depth_resolution: coarse samples per ray.
        depth_resolution_importance: fine samples per ray, placed by the coarse weights; 0 for none.
        ray_start: nearest depth, world units.
        ray_end: farthest depth.
        is_box_bounded: sample between where a ray enters and leaves the box instead (EG3D's "auto").
        box_warp: side of the cube that the planes cover.
        white_back: put rays that hit nothing on white instead of black.
        disparity_space_sampling: space coarse samples evenly in inverse depth.
        max_rays_per_chunk: rays of one camera rendered at once; bounds memory and keeps a CPU in its cache, changes no
            result. A GPU is faster with more.
        is_recomputed: where gradients are wanted, keep nothing of a chunk and compute it again on the way back: bounds
            memory then, too, for a third more time.
    """

    depth_resolution: int = 48
    depth_resolution_importance: int = 48
    ray_start: float = 2.25
    ray_end: float = 3.3
    box_warp: float = 1.0
    white_back: bool = False
    disparity_space_sampling: bool = False
    max_rays_per_chunk: int = 1024
    is_recomputed: bool = False
    is_box_bounded: bool = False

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: naming the field.
        """
        if self.depth_resolution < 4:
            raise ConfigError(f"depth_resolution: expected at least 4, got {self.depth_resolution}")
        if self.depth_resolution_importance < 0 or self.depth_resolution_importance == 1:
            raise ConfigError(
                f"depth_resolution_importance: expected 0 or >= 2, got {self.depth_resolution_importance}"
            )
        if not 0 < self.ray_start < self.ray_end:
            raise ConfigError(f"ray_start, ray_end: expected 0 < start < end, got {self.ray_start}, {self.ray_end}")
        if self.box_warp <= 0:
            raise ConfigError(f"box_warp: expected a positive size, got {self.box_warp}")
        if self.is_box_bounded and self.disparity_space_sampling:
            raise ConfigError("is_box_bounded: does not go together with disparity_space_sampling")
        if self.max_rays_per_chunk < 1:
            raise ConfigError(f"max_rays_per_chunk: expected at least 1, got {self.max_rays_per_chunk}")


@dataclass(frozen=True)
class RayLimits:
    """Depths between which rays are sampled."""

    near: Float[Tensor, "batch rays 1"]
    far: Float[Tensor, "batch rays 1"]


def box_limits(rays: Rays, box_warp: float) -> RayLimits:
    """Return where rays enter and leave the box.

    As in EG3D, rays that miss it get the depths between which the others enter it (nothing if all miss): there the
    planes read zero.
    """
    half = box_warp / 2
    step = torch.where(rays.directions == 0, torch.full_like(rays.directions, 1e-12), rays.directions)
    first, second = (-half - rays.origins) / step, (half - rays.origins) / step
    near = torch.minimum(first, second).amax(dim=-1, keepdim=True)
    far = torch.maximum(first, second).amin(dim=-1, keepdim=True)
    is_hit = far > near
    if not bool(is_hit.any()):
        return RayLimits(torch.zeros_like(near), torch.zeros_like(far))
    entering = near[is_hit]
    return RayLimits(torch.where(is_hit, near, entering.amin()), torch.where(is_hit, far, entering.amax()))


def coarse_depths(
    options: RenderingOptions,
    rays: Float[Tensor, "batch rays 3"],
    generator: torch.Generator | None,
    limits: RayLimits | None = None,
) -> Float[Tensor, "batch_or_1 rays_or_1 samples"]:
    """Return the depths of the first pass: the middle of each stratum, or a random place in it with a generator."""
    num, near, far = options.depth_resolution, options.ray_start, options.ray_end
    if generator is None:
        jitter = torch.full((1, 1, num), 0.5, device=rays.device, dtype=rays.dtype)
    else:
        shape = (*rays.shape[:2], num)
        jitter = torch.rand(shape, generator=generator, device=rays.device, dtype=rays.dtype)
    fraction = torch.linspace(0, 1, num, device=rays.device, dtype=rays.dtype)
    if limits is not None:
        return limits.near + (fraction + jitter / (num - 1)) * (limits.far - limits.near)
    if options.disparity_space_sampling:
        fraction = fraction + jitter / (num - 1)
        return 1.0 / ((1.0 - fraction) / near + fraction / far)
    return torch.linspace(near, far, num, device=rays.device, dtype=rays.dtype) + jitter * ((far - near) / (num - 1))


def importance_pdf(weights: Float[Tensor, "batch rays samples-1"]) -> Float[Tensor, "batch rays samples-3"]:
    """Return the blurred weights from which fine samples are drawn (Mip-NeRF, section 3.3), first and last left out."""
    padded = F.pad(weights, (1, 1))
    blurred = torch.maximum(padded[..., :-1], padded[..., 1:])
    return ((blurred[..., :-1] + blurred[..., 1:]) * 0.5 + PDF_FLOOR)[..., 1:-1]


def importance_depths(
    depths: Float[Tensor, "batch rays samples"],
    weights: Float[Tensor, "batch rays samples-1"],
    num_samples: int,
    generator: torch.Generator | None,
) -> Float[Tensor, "batch rays num_samples"]:
    """Return depths of the second pass by inverting the cumulative weights.

    Quantiles are evenly spaced, or random with a generator.
    As in EG3D the bins are the coarse midpoints, of which the last is never reached.
    """
    bins = (depths[..., :-1] + depths[..., 1:]) * 0.5
    pdf = importance_pdf(weights) + PDF_EPS
    cdf = F.pad(torch.cumsum(pdf / pdf.sum(dim=-1, keepdim=True), dim=-1), (1, 0))
    shape = (*cdf.shape[:-1], num_samples)
    if generator is None:
        quantiles = torch.linspace(0, 1, num_samples, device=cdf.device, dtype=cdf.dtype).expand(shape).contiguous()
    else:
        quantiles = torch.rand(shape, generator=generator, device=cdf.device, dtype=cdf.dtype)
    above = torch.searchsorted(cdf, quantiles, right=True)
    low, high = (above - 1).clamp_min(0), above.clamp_max(cdf.shape[-1] - 1)
    cdf_low, cdf_high = cdf.gather(-1, low), cdf.gather(-1, high)
    bins = bins.expand(*cdf.shape[:-1], -1)
    bin_low, bin_high = bins.gather(-1, low), bins.gather(-1, high)
    span = cdf_high - cdf_low
    span = torch.where(span < PDF_EPS, torch.ones_like(span), span)
    return bin_low + (quantiles - cdf_low) / span * (bin_high - bin_low)
