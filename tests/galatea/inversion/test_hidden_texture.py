"""Texels that a photo does not show come from the other half of the face, or from around them."""

import pytest
import torch
import torch.nn.functional as F

from galatea.cameras import orbit
from galatea.eg3d.atlas import AtlasTexels, mirrored_uv
from galatea.inversion.hidden_texture import TextureVisibility, spread, texture_visibility
from galatea.morphable.head import HeadCoefficients, HeadModel


@pytest.fixture(scope="module")
def model():
    return HeadModel.load()


def visibility(model, yaw_deg):
    head = HeadCoefficients(torch.zeros(1, model.num_identity), torch.zeros(1, 52))
    return texture_visibility(model, head, orbit(torch.tensor([yaw_deg]), torch.zeros(1)), 64)


def test_a_mirrored_view_sees_the_mirrored_texels(model):
    right, left = visibility(model, 30.0), visibility(model, -30.0)
    texels = AtlasTexels.of(model, 64)
    mirrored = F.grid_sample(left.seen, left.mirror, align_corners=False)
    error = (mirrored - right.seen).abs()[0, 0, texels.rows, texels.columns]
    change = (left.seen - right.seen).abs()[0, 0, texels.rows, texels.columns]
    assert error.mean() < 0.03
    assert change.mean() > 0.2


def test_what_lies_behind_something_is_hidden(model):
    texels = AtlasTexels.of(model, 64)
    seen = visibility(model, 0.0).seen[0, 0, texels.rows, texels.columns]
    part = model.part[texels.triangle]
    assert seen[part == model.part_names.index("tongue")].max() == 0
    assert seen[part == model.part_names.index("skin")].max() == 1


def test_almost_every_triangle_has_a_mirrored_one(model):
    both = mirrored_uv(model)
    assert both.shape == model.uv.shape
    assert (both == model.uv).all(-1).all(-1).float().mean() < 0.01


def test_hidden_texels_take_the_mirrored_ones():
    seen = torch.zeros(1, 1, 8, 8)
    seen[..., :4] = 1
    grid = F.affine_grid(torch.tensor([[[-1.0, 0, 0], [0, 1, 0]]]), [1, 1, 8, 8], align_corners=False)
    maps = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    full = TextureVisibility(seen, grid).complete(maps)
    assert torch.allclose(full[..., :4], maps[..., :4], atol=1e-4)
    lone = TextureVisibility(seen, torch.full_like(grid, 2.0)).complete(maps)
    wanted = maps[..., :4].flip(3)
    assert (full[..., 4:] - wanted).abs().mean() < 0.6 * (lone[..., 4:] - wanted).abs().mean()


def test_values_are_continued_where_there_is_no_weight():
    values, weight = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    values[..., 2:6, 2:6], weight[..., 2:6, 2:6] = 0.7, 1.0
    assert torch.allclose(spread(values, weight), torch.full((1, 1, 16, 16), 0.7), atol=1e-3)
