"""Regions of images: cut out, several of one image, and points brought back."""

import torch

from galatea.faces.regions import Regions


def ramp() -> torch.Tensor:
    """A picture whose channels are the coordinates of its pixels."""
    ticks = (torch.arange(64) + 0.5) / 64
    return torch.stack([ticks.expand(64, 64), ticks[:, None].expand(64, 64), torch.zeros(64, 64)])[None]


def some_regions() -> Regions:
    return Regions(
        torch.tensor([[0.4, 0.5], [0.55, 0.45]]), torch.tensor([0.4, 0.3]), torch.tensor([0.3, -0.6]),
        torch.tensor([False, True]),
    )  # fmt: skip


def test_cut_shows_what_lies_where_points_are_brought_back_to() -> None:
    regions, points = some_regions(), torch.tensor([[[0.25, 0.25], [0.75, 0.5]]]).expand(2, 2, 2)
    cuts = regions.cut(ramp().expand(2, -1, -1, -1), 64)
    ticks = (torch.arange(64) + 0.5) / 64
    rows, columns = torch.meshgrid(ticks, ticks, indexing="ij")
    places = regions.to_image(torch.stack([columns, rows], -1).reshape(1, -1, 2).expand(2, -1, -1))
    assert torch.allclose(cuts[:, :2].flatten(2).transpose(1, 2), places, atol=1e-4)
    assert torch.allclose(regions.to_region(regions.to_image(points)), points, atol=1e-5)


def test_several_regions_of_one_image_are_cut_in_turn() -> None:
    regions, images = some_regions(), torch.cat([ramp(), ramp().flip(3)])
    four = Regions(
        *(torch.cat([v, v]) for v in (regions.centre, regions.side, regions.angle, regions.is_mirrored))
    )  # fmt: skip
    assert torch.equal(four.cut(images, 16), four.cut(images.repeat_interleave(2, 0), 16))
