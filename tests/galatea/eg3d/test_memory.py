"""Rendering in chunks needs memory for a chunk, not for the image. Figures of full size: `benchmarks.eg3d_memory`."""

import dataclasses

import torch

from benchmarks.eg3d_memory import measure_in_child
from galatea.cameras import orbit
from galatea.eg3d import RenderingOptions
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.renderer import VolumeRenderer
from galatea.eg3d.triplane import OSGDecoder


def test_a_large_picture_needs_little_more_than_its_pixels() -> None:
    figures = measure_in_child(160, 12, 512, "none")
    points_mib = 160**2 * 24 * 64 * 4 / 2**20  # one hidden layer of all samples
    assert points_mib > 140
    assert figures["peak_mib"] - figures["before_mib"] < 130


def test_gradients_of_a_large_picture_can_be_recomputed() -> None:
    figures = [measure_in_child(128, 16, 512, way) for way in ("kept", "recomputed")]
    kept, recomputed = (figure["peak_mib"] - figure["before_mib"] for figure in figures)
    assert recomputed < 0.75 * kept


def test_recomputed_gradients_are_the_same() -> None:
    rays = camera_rays(orbit(torch.tensor([20.0]), torch.tensor([0.0])), 8)
    drawn = torch.randn(1, 3, 8, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        decoder = OSGDecoder(8)
    options = RenderingOptions(6, 6, max_rays_per_chunk=10)
    for seed in (None, 1):
        found = []
        for is_recomputed in (False, True):
            generator = None if seed is None else torch.Generator().manual_seed(seed)
            planes = drawn.clone().requires_grad_()
            chosen = dataclasses.replace(options, is_recomputed=is_recomputed)
            features = VolumeRenderer()(planes, decoder, rays, chosen, generator).features
            wanted = [planes, *decoder.parameters()]
            found.append((features.detach(), *torch.autograd.grad(features.square().sum(), wanted)))
        for kept, recomputed in zip(*found, strict=True):
            torch.testing.assert_close(kept, recomputed)
