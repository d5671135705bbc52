"""Which way round a picture is looked at: the brighter half decides, mirrored pictures are located mirrored."""

import pytest
import torch
from torch import nn

from galatea.faces.locating import TIE, locate, straight_share
from galatea.faces.reader_network import FirstReading, orthonormal
from galatea.faces.second_look import mirrored_rotation


class OneSided(nn.Module):
    """Stands in for the first look: says another place of a picture than of its mirror image."""

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0

    def forward(self, regions: torch.Tensor) -> FirstReading:
        self.looks += len(regions)
        numbers = regions.float().flatten(1)[:, 7:700:99]
        columns = numbers[:, :6].unflatten(1, (3, 2))
        return FirstReading(
            points=torch.zeros(len(regions), 478, 2),
            log_sigma=torch.zeros(len(regions), 478),
            rotation=orthonormal(torch.eye(3)[:, :2] + 0.2 * columns),
            centre=0.5 + 0.1 * numbers[:, :2],
            log_scale=numbers[:, 2],
        )


@pytest.fixture
def cuts() -> torch.Tensor:
    """Pictures that are brighter on the left, on the right, and equally bright."""
    noise = 0.05 * torch.randn(3, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0.5, -0.5, 128) * torch.tensor([1.0, -1.0, 0.0])[:, None]
    return noise + ramp[:, None, None]


def test_brighter_half_decides(cuts: torch.Tensor) -> None:
    share = straight_share(cuts)
    assert share[0] == 1
    assert share[1] == 0
    assert 0 < share[2] < 1
    assert straight_share(torch.full((1, 3, 128, 128), 0.3)) == 0.5, "nothing to decide by"


def test_mirrored_pictures_are_shared_the_other_way_round(cuts: torch.Tensor) -> None:
    assert torch.equal(straight_share(cuts.flip(3)), 1 - straight_share(cuts))


def test_share_does_not_jump_when_the_light_changes(cuts: torch.Tensor) -> None:
    lights = torch.linspace(-0.02, 0.02, 81)[:, None, None, None] * torch.linspace(-1, 1, 128)
    share = straight_share(cuts[2:] + lights)
    assert share.min() == 0
    assert share.max() == 1
    assert share.diff().abs().max() < 0.02 / TIE


def test_only_undecided_pictures_are_looked_at_twice(cuts: torch.Tensor) -> None:
    network = OneSided()
    locate(network, cuts)  # type: ignore[arg-type]
    assert network.looks == 4


def test_mirrored_pictures_are_located_mirrored(cuts: torch.Tensor) -> None:
    network = OneSided()
    place, other = locate(network, cuts), locate(network, cuts.flip(3))  # type: ignore[arg-type]
    assert (place.centre - 0.5).abs().max() > 0.01
    assert torch.allclose(other.centre[:, 0], 1 - place.centre[:, 0], atol=1e-6)
    assert torch.allclose(other.centre[:, 1], place.centre[:, 1], atol=1e-6)
    assert torch.allclose(mirrored_rotation(other.rotation), place.rotation, atol=1e-6)
    assert torch.allclose(other.log_scale, place.log_scale, atol=1e-6)
