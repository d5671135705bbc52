"""The formulas of EG3D's rendering one by one, without regard to speed: the other side of `benchmarks.eg3d`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from galatea.eg3d.rays import Rays
from galatea.eg3d.renderer import RenderingOptions
from galatea.eg3d.triplane import OSGDecoder

PLANE_COORDINATES = ((0, 1), (0, 2), (2, 0))


def read_planes(planes: Tensor, points: Tensor, box_warp: float) -> Tensor:
    """Mean over three planes, each read by torch's own sampler."""
    scaled = points * (2 / box_warp)
    read = [
        F.grid_sample(planes[:, index], scaled[:, None, :, list(axes)], align_corners=False)[:, :, 0]
        for index, axes in enumerate(PLANE_COORDINATES)
    ]
    return torch.stack(read, dim=1).mean(dim=1).transpose(1, 2)


def decode(decoder: OSGDecoder, planes: Tensor, rays: Rays, depths: Tensor, box_warp: float) -> tuple[Tensor, Tensor]:
    """Colours and densities at depths (batch, rays, samples)."""
    points = rays.origins[:, :, None] + depths[..., None] * rays.directions[:, :, None]
    decoded = decoder(read_planes(planes, points.flatten(1, 2), box_warp))
    return decoded.features.reshape(*depths.shape, -1), decoded.density.reshape(*depths.shape, 1)


def march(colours: Tensor, densities: Tensor, depths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of intervals, composited colour, and depth."""
    depths = depths[..., None]
    steps = depths[:, :, 1:] - depths[:, :, :-1]
    mean_colours = (colours[:, :, :-1] + colours[:, :, 1:]) / 2
    mean_densities = F.softplus((densities[:, :, :-1] + densities[:, :, 1:]) / 2 - 1)
    mean_depths = (depths[:, :, :-1] + depths[:, :, 1:]) / 2
    alpha = 1 - torch.exp(-mean_densities * steps)
    clear = torch.cat([torch.ones_like(alpha[:, :, :1]), 1 - alpha + 1e-10], dim=2)
    weights = alpha * torch.cumprod(clear, dim=2)[:, :, :-1]
    colour = (weights * mean_colours).sum(2) * 2 - 1
    depth = (weights * mean_depths).sum(2) / weights.sum(2)
    return weights, colour, torch.nan_to_num(depth, float("inf")).clamp(depths.min(), depths.max())


def fine_depths(depths: Tensor, weights: Tensor, count: int) -> Tensor:
    """Even quantiles of the blurred weights."""
    flat = weights.reshape(-1, weights.shape[2])
    blurred = F.avg_pool1d(F.max_pool1d(flat[:, None], 2, 1, padding=1), 2, 1)[:, 0] + 0.01
    middles = ((depths[..., 1:] + depths[..., :-1]) / 2).reshape(flat.shape)
    pdf = blurred[:, 1:-1] + 1e-5
    cdf = torch.cumsum(pdf / pdf.sum(-1, keepdim=True), -1)
    cdf = torch.cat([torch.zeros_like(cdf[:, :1]), cdf], -1)
    quantiles = torch.linspace(0, 1, count).expand(len(flat), count).contiguous()
    above = torch.searchsorted(cdf, quantiles, right=True)
    low, high = (above - 1).clamp_min(0), above.clamp_max(cdf.shape[1] - 1)
    cdf_low, middle_low = cdf.gather(1, low), middles.gather(1, low)
    span = cdf.gather(1, high) - cdf_low
    span = torch.where(span < 1e-5, torch.ones_like(span), span)
    fine = middle_low + (quantiles - cdf_low) / span * (middles.gather(1, high) - middle_low)
    return fine.reshape(*depths.shape[:2], count)


def render(planes: Tensor, decoder: OSGDecoder, rays: Rays, options: RenderingOptions) -> tuple[Tensor, Tensor]:
    """Colours and depths of rays, by two passes that are concatenated and sorted."""
    count = options.depth_resolution
    step = (options.ray_end - options.ray_start) / (count - 1)
    depths = torch.linspace(options.ray_start, options.ray_end, count) + 0.5 * step
    depths = depths.expand(*rays.origins.shape[:2], count)
    colours, densities = decode(decoder, planes, rays, depths, options.box_warp)
    with torch.no_grad():
        weights = march(colours, densities, depths)[0]
        fine = fine_depths(depths, weights, options.depth_resolution_importance)
    fine_colours, fine_densities = decode(decoder, planes, rays, fine, options.box_warp)
    depths, order = torch.sort(torch.cat([depths, fine], dim=2), dim=2)
    colours, densities = torch.cat([colours, fine_colours], dim=2), torch.cat([densities, fine_densities], dim=2)
    colours = colours.gather(2, order[..., None].expand_as(colours))
    densities = densities.gather(2, order[..., None])
    _, colour, depth = march(colours, densities, depths)
    return colour, depth
