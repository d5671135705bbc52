"""The formulas of EG3D one by one, without regard to speed: the other side of `benchmarks.eg3d`.

Weights are read from a `TriPlaneGenerator`; nothing else of it is used. Convolutions go the textbook way: every sample
gets its own scaled weights, a grouped convolution serves the batch, and up-sampling is a transposed convolution
followed by a 4x4 low-pass.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from galatea.eg3d.generator import TriPlaneGenerator
from galatea.eg3d.mapping import MappingNetwork
from galatea.eg3d.ray_sampling import RenderingOptions
from galatea.eg3d.rays import Rays, camera_rays
from galatea.eg3d.superresolution import SuperResolution
from galatea.eg3d.synthesis import SynthesisBlock, SynthesisLayer, SynthesisNetwork, ToRGBLayer
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
    hidden = F.softplus(linear(decoder.net[0], read_planes(planes, points.flatten(1, 2), box_warp)))
    out = linear(decoder.net[2], hidden)
    colours = torch.sigmoid(out[..., 1:]) * (1 + 2 * 0.001) - 0.001
    return colours.reshape(*depths.shape, -1), out[..., :1].reshape(*depths.shape, 1)


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


def linear(layer: Any, x: Tensor) -> Tensor:
    """Fully connected layer (`FullyConnectedLayer`) with equalised learning rate."""
    return F.linear(x, layer.weight * layer.weight_gain, layer.bias * layer.bias_gain)


def mapping(network: MappingNetwork, z: Tensor, c: Tensor) -> Tensor:
    """From z and camera to `w_plus`."""
    embedded = linear(network.embed, c)
    parts = [x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt() for x in (z, embedded)]
    x = torch.cat(parts, dim=1)
    for index in range(network.num_layers):
        x = F.leaky_relu(linear(getattr(network, f"fc{index}"), x), 0.2) * math.sqrt(2)
    return x[:, None].repeat(1, network.num_ws, 1)


def modulated_convolution(
    x: Tensor, weight: Tensor, styles: Tensor, is_demodulated: bool, kernel: Tensor | None
) -> Tensor:
    """Convolution with weights per sample, as one grouped convolution; with a low-pass kernel it doubles the size."""
    batch, out_channels, size = x.shape[0], weight.shape[0], weight.shape[-1]
    scaled = weight[None] * styles[:, None, :, None, None]
    if is_demodulated:
        scaled = scaled * (scaled.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, -1, *x.shape[2:])
    if kernel is None:
        y = F.conv2d(x, scaled.flatten(0, 1), padding=size // 2, groups=batch)
    else:
        y = F.conv_transpose2d(x, scaled.transpose(1, 2).flatten(0, 1), stride=2, groups=batch)
        y = low_pass(y, kernel, padding=1)
    return y.reshape(batch, out_channels, *y.shape[2:])


def low_pass(x: Tensor, kernel: Tensor, padding: int) -> Tensor:
    """Filter every channel, with the gain of 4 that zeros between pixels call for."""
    return F.conv2d(x, (kernel * 4)[None, None].repeat(x.shape[1], 1, 1, 1), padding=padding, groups=x.shape[1])


def up_sample(image: Tensor, kernel: Tensor) -> Tensor:
    """Zeros between pixels, then the low-pass."""
    batch, channels, height, width = image.shape
    wide = F.pad(image.reshape(batch, channels, height, 1, width, 1), (0, 1, 0, 0, 0, 1))
    wide = wide.reshape(batch, channels, 2 * height, 2 * width)
    return low_pass(F.pad(wide, (2, 1, 2, 1)), kernel, padding=0)


def layer(module: SynthesisLayer, x: Tensor, w: Tensor, has_noise: bool) -> Tensor:
    """Modulated convolution, noise, bias, leaky ReLU with gain."""
    kernel = module.resample_filter if module.is_upsampling else None
    y = modulated_convolution(x, module.weight, linear(module.affine, w), True, kernel)
    if has_noise:
        y = y + module.noise_const * module.noise_strength
    return F.leaky_relu(y + module.bias[:, None, None], 0.2) * math.sqrt(2)


def to_image(module: ToRGBLayer, x: Tensor, w: Tensor) -> Tensor:
    """Modulated 1x1 convolution without demodulation, plus bias."""
    styles = linear(module.affine, w) / math.sqrt(x.shape[1])
    return modulated_convolution(x, module.weight, styles, False, None) + module.bias[:, None, None]


def block(
    module: SynthesisBlock, x: Tensor | None, image: Tensor | None, ws: Tensor, has_noise: bool
) -> tuple[Tensor, Tensor]:
    """One resolution: convolutions and a contribution to the image."""
    x = module.const[None].repeat(ws.shape[0], 1, 1, 1) if x is None else layer(module.conv0, x, ws[:, 0], has_noise)
    x = layer(module.conv1, x, ws[:, module.num_conv - 1], has_noise)
    contribution = to_image(module.torgb, x, ws[:, module.num_conv])
    if image is None:
        return x, contribution
    return x, (up_sample(image, module.resample_filter) if module.is_upsampling else image) + contribution


def planes(network: SynthesisNetwork, ws: Tensor) -> Tensor:
    """Tri-planes of `w_plus`."""
    x: Tensor | None = None
    image: Tensor | None = None
    start = 0
    for resolution in network.block_resolutions:
        module = getattr(network, f"b{resolution}")
        x, image = block(module, x, image, ws[:, start : start + module.num_conv + 1], has_noise=True)
        start += module.num_conv
    if image is None:
        raise ValueError("the network has no block")
    return image.reshape(image.shape[0], 3, -1, *image.shape[2:])


def super_resolution(module: SuperResolution, image: Tensor, features: Tensor, ws: Tensor) -> Tensor:
    """The final image."""
    last, size = ws[:, -1:].repeat(1, 3, 1), (module.input_resolution, module.input_resolution)
    if features.shape[-1] != module.input_resolution:
        features = F.interpolate(features, size, mode="bilinear", align_corners=False, antialias=True)
        image = F.interpolate(image, size, mode="bilinear", align_corners=False, antialias=True)
    features, image = block(module.block0, features, image, last, has_noise=False)
    return block(module.block1, features, image, last, has_noise=False)[1]


def view(generator: TriPlaneGenerator, tri_planes: Tensor, c: Tensor, ws: Tensor, resolution: int) -> Tensor:
    """The final image of tri-planes from a camera."""
    colour, _ = render(tri_planes, generator.decoder, camera_rays(c, resolution), generator.config.rendering)
    features = colour.transpose(1, 2).reshape(c.shape[0], -1, resolution, resolution)
    return super_resolution(generator.superresolution, features[:, :3], features, ws)
