"""Lamps light bare surfaces as their formula says; shadows of the atlas follow the light."""

import pytest
import torch

from galatea.eg3d.lighting import NUM_HARMONICS, HarmonicLight, falling_light, harmonic_shading

FRONT_LAMP = torch.tensor([[0.0, 0.0, 1.0, 0.6, 0.6, 0.6, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]])
AXES = torch.tensor([[[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]])


def test_a_lamp_lights_what_faces_it():
    front, up, down, back = falling_light(FRONT_LAMP, AXES)[0, :, 0].tolist()
    assert front == pytest.approx((0.6 + 0.8 * 0.3) ** (1 / 2.2))
    assert up == pytest.approx(down)
    assert front > up > back


def test_the_sky_lights_what_looks_up():
    lamps = FRONT_LAMP.clone()
    lamps[:, 3:6], lamps[:, 9:] = 0.0, 0.0
    front, up, down, _ = falling_light(lamps, AXES)[0, :, 0].tolist()
    assert up > front > down


def test_harmonics_come_close_to_the_lamps():
    light = HarmonicLight(16, 8)
    bare = light.bare(FRONT_LAMP)[..., None, None]
    shown = harmonic_shading(bare, light.normals[None, None])[0, 0]
    assert (shown - falling_light(FRONT_LAMP, light.normals[None])[0]).abs().mean() < 0.02


def test_light_is_white_before_anything_is_learned():
    light = HarmonicLight(16, 8)
    assert not light(torch.randn(2, 16)).any()
    assert not light.shadow(torch.randn(2, 3 * NUM_HARMONICS, 1, 1)).any()


def test_shadows_follow_the_light():
    light = HarmonicLight(16, 8)
    with torch.no_grad():
        light.transfer[2, 3, 4] = -0.5
    from_the_left = torch.zeros(1, 3 * NUM_HARMONICS, 1, 1)
    from_the_left[0, 2 * 3 + 1] = 0.4  # third harmonic (y), green
    shadow = light.shadow(from_the_left).detach()
    assert float(shadow[0, 1, 3, 4]) == pytest.approx(-0.2)
    shadow[0, 1, 3, 4] = 0
    assert not shadow.any()
