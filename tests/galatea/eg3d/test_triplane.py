"""Reading tri-planes against torch's grid_sample, and the decoder."""

import pytest
import torch
import torch.nn.functional as F

from galatea.eg3d.triplane import (
    CORRECTED_PLANE_AXES,
    RELEASED_PLANE_AXES,
    OSGDecoder,
    PlaneTable,
    plane_projection,
)

RELEASED = plane_projection(torch.tensor(RELEASED_PLANE_AXES))
CORRECTED = plane_projection(torch.tensor(CORRECTED_PLANE_AXES))


def plain_sample(planes, points, coordinates, box_warp=1.0):
    """Mean over planes of torch's own sampler; `coordinates` names the two axes of each plane."""
    scaled = points * 2 / box_warp
    read = [
        F.grid_sample(planes[:, index], scaled[:, None, :, axes], align_corners=False)[:, :, 0]
        for index, axes in enumerate(coordinates)
    ]
    return torch.stack(read).mean(0).transpose(1, 2)


@pytest.fixture
def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    planes = torch.randn(2, 3, 4, 6, 9, generator=generator)
    return planes, torch.rand(2, 300, 3, generator=generator) * 1.6 - 0.8


@pytest.mark.parametrize("box_warp", [1.0, 1.6])
@pytest.mark.parametrize(
    ("projection", "coordinates"),
    [(RELEASED, [[0, 1], [0, 2], [2, 0]]), (CORRECTED, [[0, 1], [0, 2], [2, 1]])],
    ids=["released axes", "corrected axes"],
)
def test_reading_agrees_with_grid_sample_inside_and_outside(drawn, projection, coordinates, box_warp) -> None:
    planes, points = drawn
    found = PlaneTable.from_planes(planes).sample(points, projection, box_warp)
    torch.testing.assert_close(found, plain_sample(planes, points, coordinates, box_warp), atol=1e-5, rtol=1e-4)


def test_points_far_outside_read_zero(drawn) -> None:
    far = torch.tensor([[1e6, -1e6, 3.0], [-2.0, 2.0, -1e9]]).expand(2, 2, 3)
    assert torch.equal(PlaneTable.from_planes(drawn[0]).sample(far, RELEASED), torch.zeros(2, 2, 4))


def test_one_set_of_planes_serves_a_batch_of_points(drawn) -> None:
    planes, points = drawn
    shared = PlaneTable.from_planes(planes[:1]).sample(points, RELEASED)
    copied = PlaneTable.from_planes(planes[:1].expand(2, -1, -1, -1, -1)).sample(points, RELEASED)
    assert torch.equal(shared, copied)
    with pytest.raises(ValueError, match="batch of 1 or 3"):
        PlaneTable.from_planes(planes).sample(points[:1].expand(3, -1, -1), RELEASED)


def test_gradients_reach_planes_and_points() -> None:
    generator = torch.Generator().manual_seed(1)
    planes = torch.randn(1, 3, 2, 4, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    points = (torch.rand(1, 9, 3, generator=generator, dtype=torch.float64) - 0.5).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p, x: PlaneTable.from_planes(p).sample(x, RELEASED.double()), (planes, points), eps=1e-7, atol=1e-5
    )


def test_decoder_colours_stay_in_range_and_density_is_raw() -> None:
    torch.manual_seed(0)
    decoded = OSGDecoder(8, 12)(torch.randn(2, 50, 8) * 100)
    assert decoded.features.shape == (2, 50, 12)
    assert decoded.density.shape == (2, 50, 1)
    assert bool(((decoded.features >= -0.0011) & (decoded.features <= 1.0011)).all())
    assert bool((decoded.density < 0).any())
