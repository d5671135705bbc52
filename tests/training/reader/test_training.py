"""Examples from made-up renders, the loss, a few steps of training, and the weights that come out."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file
from torch import nn

from galatea.faces import second_look
from galatea.faces.reader import FaceReader
from galatea.faces.reader_network import FirstLook, FirstReading, fold_normalisation
from galatea.faces.reading import flipped
from galatea.morphable.actions import ACTION_INDEX, ARKIT_ACTIONS, mirror_permutation
from galatea.morphable.head import HeadModel
from training.reader.export import calibrate, first_look_weights, packed, reader_tensors
from training.reader.labels import LabelModel, mean_points
from training.reader.losses import losses
from training.reader.patches import PatchExamples, patch_example, pictures, placed
from training.reader.pictures import Shards, make_example, mirrored
from training.reader.render import mixed_expression, tight_cameras
from training.reader.train import Training
from training.reader.train_second_look import Looks, grown, loss
from training.reader.train_weighing import saw, weighed
from training.reader.train_weighing import train as train_weighing
from training.reader.unfold import unfold_normalisation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of made-up pictures: a bright disc as a head."""
    out = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:160, :160]
    disc = ((x - 80) ** 2 + (y - 80) ** 2 < 55**2).astype(np.uint8)
    for number in (42 * 39, 42 * 40):
        arrays = {
            "rgb": rng.integers(60, 200, (4, 160, 160, 3)).astype(np.uint8),
            "alpha": np.stack([255 * disc] * 4),
            "part": np.stack([disc] * 4),
            "camera": tight_cameras(rng, 4),
            "identity": rng.normal(0, 1, (4, 100)).astype(np.float32),
            "expression": np.stack([mixed_expression(rng) for _ in range(4)]),
            "person": np.arange(4),
        }
        save_arrays(arrays, out / f"pictures-{number:09d}.safetensors")
    return out


def folded(network: nn.Module) -> dict[str, torch.Tensor]:
    """A network's weights as they are exported."""
    other = copy.deepcopy(network).eval()
    fold_normalisation(other)
    return other.state_dict()


def batch_of(folder: Path, labels: LabelModel, num: int = 2) -> dict[str, torch.Tensor]:
    rng, shards = np.random.default_rng(1), Shards(folder, is_held_out=False)
    rows = [make_example(shards.read(row), labels, rng).tensors() for row in range(num)]
    return {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}


def test_some_shards_are_kept_from_training(folder: Path) -> None:
    training, held_out = Shards(folder, is_held_out=False), Shards(folder, is_held_out=True)
    assert len(training) == len(held_out) == 4
    assert not np.allclose(training.read(0).identity, held_out.read(0).identity)


def test_the_same_seed_makes_the_same_example(folder: Path, labels: LabelModel) -> None:
    render = Shards(folder, is_held_out=False).read(1)
    first, second = (make_example(render, labels, np.random.default_rng(3)).tensors() for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert first["image"].shape == (3, 128, 128)


def test_plain_mirrored_render_is_the_mirrored_picture(folder: Path, head: HeadModel) -> None:
    render = Shards(folder, is_held_out=False).read(2)
    other = mirrored(render, head)
    assert np.array_equal(other.rgba[:, ::-1], render.rgba)
    assert np.array_equal(mirrored(other, head).expression, render.expression)
    assert np.allclose(mirrored(other, head).camera, render.camera)


def test_true_readings_have_the_smallest_loss(folder: Path, labels: LabelModel) -> None:
    batch = batch_of(folder, labels)
    true = {name: batch[name] for name in ("points", "rotation", "centre", "log_scale")}
    sigma = torch.full((2, 478), -4.0)
    perfect = losses(FirstReading(log_sigma=sigma, **true), batch)
    worse = losses(FirstReading(log_sigma=sigma, **{name: value + 0.1 for name, value in true.items()}), batch)
    for name, value in perfect.items():
        assert value.mean() < worse[name].mean()
    assert all(perfect[name].abs().max() < 1e-9 for name in ("rotation", "place"))


def test_training_goes_on_from_its_last_state(folder: Path, labels: LabelModel, tmp_path: Path) -> None:
    batch = batch_of(folder, labels)
    training = Training(tmp_path, seconds=100.0)
    training.spent = 20.0
    parts = training.step(batch)
    assert all(np.isfinite(value) for value in parts.values())
    training.save()
    resumed = Training(tmp_path, seconds=100.0)
    assert (resumed.spent, resumed.seen) == (training.spent, training.seen)
    for name, value in training.network.state_dict().items():
        assert torch.equal(resumed.network.state_dict()[name], value)


def test_exported_reader_says_what_the_trained_networks_say(head: HeadModel) -> None:
    torch.manual_seed(0)
    mean = torch.from_numpy(mean_points(head))
    first, looks = FirstLook(mean), Looks(mean)
    picture, patch, pose = torch.rand(2, 3, 128, 128) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1, torch.eye(3)[None]
    first(picture)
    looks.mouth(patch, pose.expand(2, 3, 3))
    first.eval(), looks.eval()
    with torch.no_grad():
        expected, lips = first(picture), looks.mouth(patch, pose.expand(2, 3, 3)).points
        tensors = reader_tensors(folded(first), looks.state_dict(), None, head)
        exact, stored = FaceReader.from_tensors(tensors), FaceReader.from_tensors(packed(tensors))
        for reader, tolerance in ((exact, 1e-4), (stored, 2e-3)):
            assert torch.allclose(reader.first(picture).points, expected.points, atol=tolerance)
            assert torch.allclose(reader.closer.mouth(patch, pose.expand(2, 3, 3)).points, lips, atol=tolerance)


def test_folded_weights_are_gone_on_from_where_they_were(head: HeadModel) -> None:
    torch.manual_seed(0)
    mean = torch.from_numpy(mean_points(head))
    folded, unfolded = Looks(mean).mouth, Looks(mean).mouth
    patches, pose = torch.rand(64, 3, 64, 64) * 2 - 1, torch.eye(3).expand(64, 3, 3)
    folded(patches, pose)
    fold_normalisation(folded.eval())
    unfold_normalisation(unfolded, folded.state_dict(), patches, pose)
    with torch.no_grad():
        expected = folded(patches, pose)
        found, training = unfolded.eval()(patches, pose), unfolded.train()(patches, pose)
    assert torch.allclose(found.numbers, expected.numbers, atol=1e-4)
    assert torch.allclose(found.points, expected.points, atol=1e-5)
    assert torch.allclose(training.points, expected.points, atol=1e-3)


def test_patches_given_again_lie_elsewhere_with_their_points(folder: Path, labels: LabelModel) -> None:
    rng = np.random.default_rng(0)
    example = patch_example(Shards(folder, is_held_out=False).read(0), labels, rng, None)
    first, second = placed(example, rng), placed(example, rng)
    assert first["eyes"].shape == (2, 3, 64, 64)
    moved = np.rint((second["mouth_points"][0] - first["mouth_points"][0]) * 64).astype(int)
    assert moved.any()
    x, y = moved
    inner = second["mouth"][:, 8:-8, 8:-8]
    assert np.array_equal(first["mouth"][:, 8 - y : 56 - y, 8 - x : 56 - x], inner)
    assert not np.allclose(first["mouth_rotation"], second["mouth_rotation"])


def test_without_a_run_the_built_in_first_look_is_taken(
    folder: Path, labels: LabelModel, head: HeadModel, tmp_path: Path
) -> None:
    looks = Looks(torch.from_numpy(mean_points(head))).state_dict()
    built_in_first = FaceReader.load().first.state_dict()
    found = FaceReader.from_tensors(reader_tensors(first_look_weights(None), looks, None, head)).first.state_dict()
    assert all(torch.equal(found[name], value) for name, value in built_in_first.items())
    training = Training(tmp_path, seconds=100.0)
    training.step(batch_of(folder, labels))
    training.save()
    assert first_look_weights(tmp_path).keys() == found.keys()


def test_second_looks_learn_from_patches(folder: Path, head: HeadModel) -> None:
    looks = Looks(torch.from_numpy(mean_points(head)))
    examples = iter(PatchExamples(folder, 1))
    rows = [next(examples) for _ in range(2)]
    batch = {name: torch.from_numpy(np.stack([row[name] for row in rows])) for name in rows[0]}
    assert batch["eyes"].shape == (2, 2, 3, 64, 64)
    optimizer = torch.optim.AdamW(looks.parameters(), lr=1e-3)
    totals = []
    for _ in range(6):
        total, parts = loss(looks, batch)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < totals[0]
    assert all(np.isfinite(value) for value in parts.values())


def test_an_earlier_training_is_gone_on_with_when_points_were_added_behind_its_own(head: HeadModel) -> None:
    fresh = Looks(torch.from_numpy(mean_points(head))).state_dict()
    fewer = len(second_look.RIGHT_EYE) - 5
    earlier = {name: torch.full_like(value, 7) for name, value in fresh.items() if name != "eyes.exactly.bias"}
    earlier |= {"eyes.where.weight": torch.full_like(fresh["eyes.where.weight"][:fewer], 7)}
    found = grown(earlier, fresh)
    assert (found["eyes.where.weight"][:fewer] == 7).all()
    assert torch.equal(found["eyes.where.weight"][fewer:], fresh["eyes.where.weight"][fewer:])
    for new in ("eyes.exactly.bias", "eyes.mean_points"):
        assert torch.equal(found[new], fresh[new])


def test_mirror_images_of_points_that_are_looked_at_closely_are_looked_at_closely(labels: LabelModel) -> None:
    assert labels.mirror[list(second_look.RIGHT_EYE)].tolist() == list(second_look.LEFT_EYE)
    mouth = list(second_look.MOUTH_POINTS)
    assert sorted(labels.mirror[mouth]) == sorted(mouth)


def test_points_that_both_eyes_patches_show_are_nearer_to_the_surer_one(head: HeadModel) -> None:
    mean = torch.from_numpy(mean_points(head))
    reader = FaceReader.from_tensors(reader_tensors(folded(FirstLook(mean)), Looks(mean).state_dict(), None, head))
    patches = [
        (list(rows), point, spread)
        for rows, point, spread in (
            (second_look.RIGHT_EYE, 1.0, 0.1), (second_look.LEFT_EYE, 3.0, 0.2), (second_look.MOUTH_POINTS, 5.0, 0.3)
        )
    ]  # fmt: skip
    points = torch.cat([torch.full((1, len(rows), 2), point) for rows, point, _ in patches], 1)
    spreads = torch.cat([torch.full((1, len(rows)), spread) for rows, _, spread in patches], 1)
    first = FirstReading(
        torch.zeros(1, 478, 2), torch.zeros(1, 478), torch.eye(3)[None], torch.zeros(1, 2), torch.zeros(1)
    )
    placed, sigma = reader.closer._placed(points, spreads.log(), first)
    right, left, mouth = (rows for rows, _, _ in patches)
    shared = sorted(set(right) & set(left))
    assert torch.allclose(placed[0, shared], torch.tensor(1 + 2 * 0.2))
    assert ((sigma[0, shared].exp() > 0.1) & (sigma[0, shared].exp() < 0.2)).all()
    alone = [row for row in right if row not in shared]
    assert torch.allclose(placed[0, alone], torch.tensor(1.0))
    assert torch.allclose(sigma[0, alone].exp(), torch.tensor(0.1))
    assert torch.allclose(placed[0, mouth], torch.tensor(5.0))
    others = [row for row in range(478) if row not in {*right, *left, *mouth}]
    assert (placed[0, others] == 0).all()


def test_weighing_learns_what_single_looks_miss(folder: Path, head: HeadModel) -> None:
    torch.manual_seed(0)
    mean = torch.from_numpy(mean_points(head))
    first, looks = folded(FirstLook(mean)), Looks(mean).state_dict()
    reader = FaceReader.from_tensors(reader_tensors(first, looks, None, head))
    generator = torch.Generator().manual_seed(1)
    rows = saw(reader, next(pictures(folder, 1)), generator)
    alone = (rows["actions"] - rows["true_actions"]).square().mean()
    with torch.no_grad():
        assert torch.allclose(weighed(reader.closer, rows).points, rows["points"], atol=1e-6), "untrained adds nothing"
    train_weighing(reader.closer, {name: torch.cat([value] * 4) for name, value in rows.items()}, 1, num_epochs=40)
    with torch.no_grad():
        together = weighed(reader.closer, rows)
    assert (together.actions - rows["true_actions"]).square().mean() < 0.7 * alone


def test_mirrored_sights_are_weighed_to_mirrored_readings(head: HeadModel) -> None:
    mean = torch.from_numpy(mean_points(head))
    reader = FaceReader.from_tensors(reader_tensors(folded(FirstLook(mean)), Looks(mean).state_dict(), None, head))
    nn.init.normal_(reader.closer.weighing.out.weight, std=0.1)
    nn.init.normal_(reader.closer.weighing.hidden[0].weight, std=0.1)
    mirror, actions = reader.mirror, list(mirror_permutation())
    rows = {
        "points": mean + 0.02 * torch.randn(2, 478, 2), "sigma": torch.ones(2, 478), "actions": torch.rand(2, 52),
        "eyes": torch.rand(2, 2, 160), "mouth": torch.rand(2, 2, 160), "rotation": torch.eye(3).repeat(2, 1, 1),
    }  # fmt: skip
    other = {
        **rows, "points": flipped(rows["points"])[:, mirror], "actions": rows["actions"][:, actions],
        "eyes": rows["eyes"].flip(1), "mouth": rows["mouth"].flip(1),
    }  # fmt: skip
    with torch.no_grad():
        straight, mirrored = weighed(reader.closer, rows), weighed(reader.closer, other)
    assert torch.allclose(flipped(mirrored.points)[:, mirror], straight.points, atol=1e-5)
    assert torch.allclose(mirrored.actions[:, actions], straight.actions, atol=1e-5)


def test_calibration_stretches_what_a_regression_shrinks() -> None:
    generator = torch.Generator().manual_seed(0)
    true = (torch.rand(2000, 52, generator=generator) - 0.5).clamp_min(0) * 2
    mirror = list(mirror_permutation())
    read = 0.7 * true + 0.05 + 0.01 * torch.randn(true.shape, generator=generator)
    table = calibrate(read, true)
    stretched = read * table[0] + table[1]
    assert torch.allclose(table[:, mirror], table)
    assert (stretched - true).abs().mean() < 0.03


def test_calibration_counts_that_readings_are_clipped_and_leaves_what_nobody_does() -> None:
    generator = torch.Generator().manual_seed(0)
    true = (3 * torch.rand(4000, 52, generator=generator) - 1).clamp(0, 1)
    true[:, ACTION_INDEX["jawOpen"]] = 0
    read = 0.8 * true + 0.05 * torch.randn(true.shape, generator=generator)
    table = calibrate(read, true)
    clipped = (read * table[0] + table[1]).clamp(0, 1)[:, ACTION_INDEX["tongueOut"]]
    centred = true[:, ACTION_INDEX["tongueOut"]] - true[:, ACTION_INDEX["tongueOut"]].mean()
    assert (centred * clipped).sum() / centred.square().sum() == pytest.approx(1, abs=0.02)
    assert table[:, ACTION_INDEX["jawOpen"]].tolist() == [1, 0]


def test_what_is_read_of_shut_eyes_does_not_stretch_the_gaze_of_open_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(4000, 52, generator=generator)
    shut = torch.rand(4000, generator=generator) < 0.4
    both = [ACTION_INDEX["eyeBlinkLeft"], ACTION_INDEX["eyeBlinkRight"]]
    true[:, both] = shut.float()[:, None].expand(-1, 2)
    read = 0.8 * true
    looks = [index for index, name in enumerate(ARKIT_ACTIONS) if name.startswith("eyeLook")]
    read[:, looks] *= (~shut).float()[:, None]
    assert calibrate(read, true)[0, looks] == pytest.approx(torch.full((8,), 1 / 0.8).numpy(), rel=0.02)


def test_saved_average_is_a_network_of_its_own(folder: Path, labels: LabelModel, tmp_path: Path) -> None:
    training = Training(tmp_path, seconds=100.0)
    training.spent = 50.0
    training.step(batch_of(folder, labels))
    training.save()
    average = load_file(tmp_path / "average.safetensors")
    assert average.keys() == training.network.state_dict().keys()
