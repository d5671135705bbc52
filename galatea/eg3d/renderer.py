"""Volume rendering of tri-planes with two-pass importance sampling (EG3D, section 4.3; NeRF; Mip-NeRF)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from galatea.eg3d.rays import Rays
from galatea.eg3d.triplane import RELEASED_PLANE_AXES, DecodedPoints, Decoder, PlaneTable, plane_projection
from galatea.errors import ConfigError

DENSITY_SHIFT = 1.0
"""Density is softplus(raw - 1), so that space starts out nearly empty (Mip-NeRF)."""
TRANSMITTANCE_EPS = 1e-10
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
        if self.max_rays_per_chunk < 1:
            raise ConfigError(f"max_rays_per_chunk: expected at least 1, got {self.max_rays_per_chunk}")


@dataclass(frozen=True)
class RenderedRays:
    """Composited rays: `features` in [-1,1] (first three: RGB), `depth` (expected distance), `alpha` (opacity 0..1)."""

    features: Float[Tensor, "batch rays channels"]
    depth: Float[Tensor, "batch rays 1"]
    alpha: Float[Tensor, "batch rays 1"]


def coarse_depths(
    options: RenderingOptions, rays: Float[Tensor, "batch rays 3"], generator: torch.Generator | None
) -> Float[Tensor, "batch_or_1 rays_or_1 samples"]:
    """Return the depths of the first pass: the middle of each stratum, or a random place in it with a generator."""
    num, near, far = options.depth_resolution, options.ray_start, options.ray_end
    if generator is None:
        jitter = torch.full((1, 1, num), 0.5, device=rays.device, dtype=rays.dtype)
    else:
        shape = (*rays.shape[:2], num)
        jitter = torch.rand(shape, generator=generator, device=rays.device, dtype=rays.dtype)
    if options.disparity_space_sampling:
        fraction = torch.linspace(0, 1, num, device=rays.device, dtype=rays.dtype) + jitter / (num - 1)
        return 1.0 / ((1.0 - fraction) / near + fraction / far)
    return torch.linspace(near, far, num, device=rays.device, dtype=rays.dtype) + jitter * ((far - near) / (num - 1))


def ray_weights(
    density: Float[Tensor, "batch rays samples"], depths: Float[Tensor, "batch rays samples"]
) -> Float[Tensor, "batch rays samples-1"]:
    """Return how much each interval between neighbouring samples contributes (NeRF, equation 3, on interval means)."""
    mean_density = (density[..., :-1] + density[..., 1:]) * 0.5
    optical_depth = F.softplus(mean_density - DENSITY_SHIFT) * (depths[..., 1:] - depths[..., :-1])
    alpha = 1.0 - torch.exp(-optical_depth)
    transmittance = torch.cumprod(1.0 - alpha[..., :-1] + TRANSMITTANCE_EPS, dim=-1)
    return torch.cat([alpha[..., :1], alpha[..., 1:] * transmittance], dim=-1)


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


class VolumeRenderer(nn.Module):
    """Renders rays through tri-planes.

    Args:
        plane_axes: axes of the three planes, (3, 3, 3); belongs to the checkpoint.
    """

    plane_axes: Tensor
    projection: Tensor

    def __init__(self, plane_axes: Float[Tensor, "3 3 3"] | None = None) -> None:
        super().__init__()
        axes = torch.tensor(RELEASED_PLANE_AXES) if plane_axes is None else plane_axes
        self.register_buffer("plane_axes", axes, persistent=False)
        self.register_buffer("projection", plane_projection(axes), persistent=False)

    def forward(
        self,
        planes: Float[Tensor, "planes_batch 3 channels height width"],
        decoder: Decoder,
        rays: Rays,
        options: RenderingOptions,
        generator: torch.Generator | None = None,
    ) -> RenderedRays:
        """Render rays.

        Args:
            planes: tri-planes, one per camera, or a batch of 1 shared by all cameras.
            decoder: from plane features to colour and density.
            rays: rays in world space.
            options: sampling.
            generator: None samples deterministically (stratum middles, even quantiles); a generator jitters.
        """
        table = PlaneTable.from_planes(planes)
        render = self._render_again_later if options.is_recomputed and torch.is_grad_enabled() else self._render_chunk
        chunks = [
            render(table, decoder, Rays(origins, directions), options, generator)
            for origins, directions in zip(
                torch.split(rays.origins, options.max_rays_per_chunk, dim=1),
                torch.split(rays.directions, options.max_rays_per_chunk, dim=1),
                strict=True,
            )
        ]
        features, depth_sum, alpha = (torch.cat(parts, dim=1) for parts in zip(*(c[:3] for c in chunks), strict=True))
        nearest = torch.stack([c[3] for c in chunks]).amin()
        farthest = torch.stack([c[4] for c in chunks]).amax()
        depth = torch.nan_to_num(depth_sum / alpha, nan=float("inf")).clamp(nearest, farthest)
        return RenderedRays(features, depth, alpha)

    def query(
        self,
        planes: Float[Tensor, "planes_batch 3 channels height width"],
        decoder: Decoder,
        points: Float[Tensor, "batch n 3"],
        directions: Float[Tensor, "batch n 3"],
        box_warp: float,
    ) -> DecodedPoints:
        """Decode the planes at world points."""
        features = PlaneTable.from_planes(planes).sample(points, self.projection, box_warp)
        return decoder(features, points, directions)

    def _sample(
        self,
        table: PlaneTable,
        decoder: Decoder,
        rays: Rays,
        depths: Float[Tensor, "batch_or_1 rays_or_1 samples"],
        box_warp: float,
    ) -> tuple[Float[Tensor, "batch rays samples channels"], Float[Tensor, "batch rays samples"]]:
        """Return features and density at depths along rays."""
        batch, num_rays = rays.origins.shape[:2]
        num_samples = depths.shape[-1]
        points = (rays.origins[..., None, :] + depths[..., None] * rays.directions[..., None, :]).flatten(1, 2)
        directions = rays.directions[..., None, :].expand(-1, -1, num_samples, -1).reshape(points.shape)
        decoded = decoder(table.sample(points, self.projection, box_warp), points, directions)
        return (
            decoded.features.reshape(batch, num_rays, num_samples, -1),
            decoded.density.reshape(batch, num_rays, num_samples),
        )

    def _render_again_later(
        self,
        table: PlaneTable,
        decoder: Decoder,
        rays: Rays,
        options: RenderingOptions,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Render some rays so that the backward pass computes them again, with the same random numbers."""
        state = None if generator is None else generator.get_state()

        def render(rows: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
            again = generator
            if generator is not None and state is not None and not torch.equal(generator.get_state(), state):
                again = torch.Generator(generator.device)
                again.set_state(state)
            return self._render_chunk(replace(table, rows=rows), decoder, Rays(origins, directions), options, again)

        found: tuple[Tensor, Tensor, Tensor, Tensor, Tensor] = checkpoint(
            render, table.rows, rays.origins, rays.directions, use_reentrant=False, preserve_rng_state=False
        )
        return found

    def _render_chunk(
        self,
        table: PlaneTable,
        decoder: Decoder,
        rays: Rays,
        options: RenderingOptions,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return features, weighted depth sum, alpha, nearest and farthest sample of some rays."""
        coarse = coarse_depths(options, rays.origins, generator)
        features, density = self._sample(table, decoder, rays, coarse, options.box_warp)
        depths = coarse.expand_as(density)
        parts, order = [features], None
        if options.depth_resolution_importance > 0:
            with torch.no_grad():
                weights = ray_weights(density, depths)
                fine = importance_depths(depths, weights, options.depth_resolution_importance, generator)
            fine_features, fine_density = self._sample(table, decoder, rays, fine, options.box_warp)
            parts.append(fine_features)
            depths, order = torch.sort(torch.cat([depths, fine], dim=-1), dim=-1)
            density = torch.cat([density, fine_density], dim=-1).gather(-1, order)
        weights = ray_weights(density, depths)
        alpha = weights.sum(dim=-1, keepdim=True)
        depth_sum = (weights * (depths[..., :-1] + depths[..., 1:]) * 0.5).sum(dim=-1, keepdim=True)
        # The colour of an interval is the mean of its two samples: half a weight goes to each. So the large features
        # stay where they are, and only weights are put back into the order of sampling.
        share = (F.pad(weights, (1, 0)) + F.pad(weights, (0, 1))) * 0.5
        if order is not None:
            share = torch.zeros_like(share).scatter(-1, order, share)
        shares = torch.split(share, [part.shape[2] for part in parts], dim=-1)
        colour = torch.stack([(s[..., None, :] @ part)[..., 0, :] for s, part in zip(shares, parts, strict=True)]).sum(
            0
        )
        if options.white_back:
            colour = colour + 1.0 - alpha
        return colour * 2.0 - 1.0, depth_sum, alpha, depths[..., 0].amin(), depths[..., -1].amax()
