"""The reader of faces with its own weights: what it reads of a real photo, and how readings change with the picture."""

import copy
import math

import numpy as np
import pytest
import torch

from galatea.errors import WeightsError
from galatea.faces import second_look
from galatea.faces.alignment import portrait_crop
from galatea.faces.reader import FaceReader
from galatea.faces.reader_data import built_in, reader_correspondence
from galatea.faces.regions import Regions
from galatea.images import to_tensor
from galatea.morphable.actions import ACTION_INDEX, mirror_permutation
from galatea.morphable.fitting import HeadFitter
from galatea.morphable.head import HeadModel

FIVE = np.array([[202.6, 110.3], [247.3, 107.7], [225.5, 135.0], [207.5, 151.5], [247.0, 149.0]])
"""Eyes, nose tip and mouth corners of the astronaut, by eye; no detector is needed here."""


@pytest.fixture(scope="module")
def reader() -> FaceReader:
    return FaceReader.load()


@pytest.fixture(scope="module")
def crop(astronaut: np.ndarray) -> torch.Tensor:
    return to_tensor(portrait_crop(astronaut, FIVE, 256).image)


def test_astronaut_smiles_with_open_eyes(reader: FaceReader, crop: torch.Tensor) -> None:
    reading = reader.read(crop)
    points = reading.points[0]
    assert points[33, 0] < points[133, 0] < points[362, 0] < points[263, 0]
    assert points[10, 1] < points[4, 1] < points[13, 1] < points[152, 1]
    assert points[133, 0] > points[468, 0] > points[33, 0]
    assert points[362, 0] < points[473, 0] < points[263, 0]
    smile, blink = ([ACTION_INDEX[name + side] for side in ("Left", "Right")] for name in ("mouthSmile", "eyeBlink"))
    assert reading.expression[0, smile].mean() > 0.4
    assert reading.expression[0, blink].max() < 0.4
    assert reading.confidence.item() > 0.9
    assert reading.gaze[0, :, 2].max() < -0.7, "eyes look out of the picture"


def test_mirrored_photo_gives_the_mirrored_reading(reader: FaceReader, crop: torch.Tensor) -> None:
    straight, mirrored = reader.read(crop), reader.read(crop.flip(3))
    flipped = torch.stack([1 - mirrored.points[..., 0], mirrored.points[..., 1]], -1)[:, reader.mirror]
    eyes = (straight.points[0, 468] - straight.points[0, 473]).norm()
    assert (flipped - straight.points).norm(dim=-1).mean() < 0.001 * eyes
    assert (mirrored.expression[:, mirror_permutation()] - straight.expression).abs().max() < 0.02
    angles = mirrored.angles_deg() * torch.tensor([-1.0, 1.0, -1.0]) - straight.angles_deg()
    assert angles.abs().max() < 0.1


@pytest.mark.parametrize("angle", [-25.0, 15.0])
def test_reading_turns_with_the_picture(reader: FaceReader, crop: torch.Tensor, angle: float) -> None:
    region = Regions(torch.full((1, 2), 0.5), torch.ones(1), torch.tensor([math.radians(angle)]))
    upright, turned = reader.read(crop), reader.read(region.cut(crop, 256))
    eyes = (upright.points[0, 468] - upright.points[0, 473]).norm()
    assert (region.to_image(turned.points) - upright.points).norm(dim=-1).median() < 0.04 * eyes
    assert (turned.angles_deg()[0, 2] - upright.angles_deg()[0, 2]).abs() == pytest.approx(abs(angle), abs=3)
    assert (turned.expression - upright.expression).abs().mean() < 0.03


def test_bfloat16_reads_what_float32_reads(
    reader: FaceReader, crop: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    readings = []
    for is_fast in (True, False):
        monkeypatch.setattr(second_look, "has_fast_bfloat16", lambda is_fast=is_fast: is_fast)
        readings.append(reader.read(crop))
    short, exact = readings
    eyes = (exact.points[0, 468] - exact.points[0, 473]).norm()
    assert (short.points - exact.points).norm(dim=-1).mean() < 0.005 * eyes
    assert (short.expression - exact.expression).abs().max() < 0.05


def test_large_crops_are_read_as_small_ones(reader: FaceReader, astronaut: np.ndarray) -> None:
    small, large = (reader.read(to_tensor(portrait_crop(astronaut, FIVE, size).image)) for size in (256, 512))
    eyes = (small.points[0, 468] - small.points[0, 473]).norm()
    assert (small.points - large.points).norm(dim=-1).mean() < 0.01 * eyes
    assert (small.expression - large.expression).abs().max() < 0.1


def test_faces_in_a_batch_do_not_mix(reader: FaceReader, crop: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(second_look, "has_fast_bfloat16", lambda: False)
    together = reader.read(torch.cat([torch.zeros_like(crop), crop, crop.flip(3)]))
    alone = reader.read(crop)
    assert torch.allclose(together.points[1], alone.points[0], atol=1e-4)
    assert torch.allclose(together.expression[1], alone.expression[0], atol=1e-3)


def test_pictures_without_a_face_are_not_trusted(reader: FaceReader) -> None:
    noise = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert reader.read(torch.cat([noise, torch.zeros_like(noise)])).confidence.max() < 0.5


def test_gradients_are_those_of_small_changes(reader: FaceReader, crop: torch.Tensor) -> None:
    exact, picture = copy.deepcopy(reader).double(), crop.double()
    regions = exact.regions(picture)

    def score(image: torch.Tensor) -> torch.Tensor:
        reading = exact.read(image, regions)
        return reading.points.sum() + reading.expression.sum() + reading.rotation.sum() + reading.gaze.sum()

    direction = torch.randn(picture.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    leaf = picture.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(score(leaf), leaf)
    step = 1e-8  # Small enough that no rectifier changes sides.
    with torch.no_grad():
        slope = (score(picture + step * direction) - score(picture - step * direction)) / (2 * step)
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=1e-3)


def test_head_fit_takes_landmarks_spread_and_expression(reader: FaceReader, crop: torch.Tensor) -> None:
    reading = reader.read(crop)
    fit = HeadFitter(HeadModel.load()).fit(reading.landmarks())
    assert fit.is_converged.all()
    assert fit.residual.item() < 0.03
    assert (fit.expression - reading.expression).abs().mean() < 0.05


def test_both_eyes_look_the_same_way(reader: FaceReader, crop: torch.Tensor) -> None:
    expression = reader.read(crop).expression[0]
    for one, other in (("eyeLookInLeft", "eyeLookOutRight"), ("eyeLookUpLeft", "eyeLookUpRight")):
        assert expression[ACTION_INDEX[one]] == pytest.approx(expression[ACTION_INDEX[other]].item(), abs=0.02)


def test_places_on_the_head_are_symmetric() -> None:
    head, mirror = HeadModel.load(), built_in()["mirror"].long()
    points = reader_correspondence().points(head.mean[None])[0]
    pairs = points[mirror[:468]] * torch.tensor([-1.0, 1.0, 1.0])
    assert (pairs - points[:468]).norm(dim=1).max() < 1e-3
    assert (mirror[mirror] == torch.arange(478)).all()


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 32)])
def test_other_than_square_colour_crops_are_refused(reader: FaceReader, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="square RGB crops"):
        reader.read(torch.zeros(shape))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(WeightsError, match="do not fit"):
        FaceReader.from_tensors({"first.mean_points": torch.zeros(478, 2)})
