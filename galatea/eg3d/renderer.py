"""Volume rendering of tri-planes with two-pass importance sampling (EG3D, section 4.3; NeRF; Mip-NeRF)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.ray_sampling import RayLimits, RenderingOptions, box_limits, coarse_depths, importance_depths
from galatea.eg3d.rays import Rays
from galatea.eg3d.recomputed import in_parts
from galatea.eg3d.triplane import RELEASED_PLANE_AXES, DecodedPoints, Decoder, PlaneTable, plane_projection

DENSITY_SHIFT = 1.0
"""Density is softplus(raw - 1), so that space starts out nearly empty (Mip-NeRF)."""
TRANSMITTANCE_EPS = 1e-10


@dataclass(frozen=True)
class RenderedRays:
    """Composited rays: `features` in [-1,1] (first three: RGB), `depth` (expected distance), `alpha` (opacity 0..1)."""

    features: Float[Tensor, "batch rays channels"]
    depth: Float[Tensor, "batch rays 1"]
    alpha: Float[Tensor, "batch rays 1"]


def ray_weights(
    density: Float[Tensor, "batch rays samples"], depths: Float[Tensor, "batch rays samples"]
) -> Float[Tensor, "batch rays samples-1"]:
    """Return how much each interval between neighbouring samples contributes (NeRF, equation 3, on interval means)."""
    mean_density = (density[..., :-1] + density[..., 1:]) * 0.5
    optical_depth = F.softplus(mean_density - DENSITY_SHIFT) * (depths[..., 1:] - depths[..., :-1])
    alpha = 1.0 - torch.exp(-optical_depth)
    transmittance = torch.cumprod(1.0 - alpha[..., :-1] + TRANSMITTANCE_EPS, dim=-1)
    return torch.cat([alpha[..., :1], alpha[..., 1:] * transmittance], dim=-1)


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
        limits = box_limits(rays, options.box_warp) if options.is_box_bounded else None
        weights = dict(decoder.named_parameters()) if isinstance(decoder, nn.Module) else {}
        inputs = [table.rows, rays.origins, rays.directions, *([] if limits is None else [limits.near, limits.far])]

        def compute(part: slice, given: tuple[Tensor, ...], random: torch.Generator | None) -> tuple[Tensor, ...]:
            rows, origins, directions = given[0], given[1][:, part], given[2][:, part]
            some = None if limits is None else RayLimits(given[3][:, part], given[4][:, part])
            used = _with_weights(decoder, weights, given[len(inputs) :])
            return self._render_chunk(replace(table, rows=rows), used, Rays(origins, directions), some, options, random)

        starts = range(0, rays.origins.shape[1], options.max_rays_per_chunk)
        parts = [slice(start, min(start + options.max_rays_per_chunk, rays.origins.shape[1])) for start in starts]
        if not torch.is_grad_enabled():
            outputs = in_parts(compute, parts, inputs, generator)
        elif options.is_recomputed:
            outputs = in_parts(compute, parts, [*inputs, *weights.values()], generator)
        else:
            chunks = [compute(part, tuple(inputs), generator) for part in parts]
            outputs = tuple(torch.cat(pieces, dim=1) for pieces in zip(*chunks, strict=True))
        features, depth_sum, alpha, nearest, farthest = outputs
        depth = torch.nan_to_num(depth_sum / alpha, nan=float("inf")).clamp(nearest.amin(), farthest.amax())
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

    def _render_chunk(
        self,
        table: PlaneTable,
        decoder: Decoder,
        rays: Rays,
        limits: RayLimits | None,
        options: RenderingOptions,
        generator: torch.Generator | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Return features, weighted depth sum, alpha, nearest and farthest sample of each of some rays."""
        coarse = coarse_depths(options, rays.origins, generator, limits)
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
        return colour * 2.0 - 1.0, depth_sum, alpha, depths[..., :1].clone(), depths[..., -1:].clone()


def _with_weights(decoder: Decoder, weights: Iterable[str], given: tuple[Tensor, ...]) -> Decoder:
    """Return the decoder with other values of its weights; none given: as it is."""
    if not given or not isinstance(decoder, nn.Module):
        return decoder
    values = dict(zip(weights, given, strict=True))
    return lambda *points: torch.func.functional_call(decoder, values, points)
