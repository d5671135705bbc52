"""Training of the built-in generator, at toy size: patches fit their rays, steps learn, checkpoints resume."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from galatea.cameras import orbit
from galatea.eg3d.guided_sampling import SurfaceSampling
from galatea.eg3d.rays import camera_rays
from galatea.errors import ConfigError
from galatea.morphable.head import HeadModel
from tests.small_generators import SMALL
from training.adversary import Adversary
from training.head_images import PATCH, HeadImages, PatchBatch, PatchSampling, patch_rays
from training.reconstruction import evaluate, write_sheet
from training.tracking import TrainingTracker
from training.trainer import Trainer
from training.training_config import TrainingConfig

FIELDS = {"skin_color": [0, 3], "age": [3, 4]}
PARTS = ["background", "skin", "eyes", "mouth", "hair", "brows", "cloth"]
CONFIG = replace(
    SMALL,
    code_fields=(("skin_color", 3), ("age", 1)),
    sampling=SurfaceSampling(num_search=12, num_surface=3, num_free=3),
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Two people x 1 expression x 2 views, 64x64: an orange disc in the middle of each picture."""
    folder = tmp_path_factory.mktemp("shards")
    rows, columns = np.mgrid[:64, :64]
    disc = (rows - 30) ** 2 + (columns - 32) ** 2 < 24**2
    part = disc.astype(np.uint8)
    part[24:28, 20:44] = 2
    model = HeadModel.load()
    person = np.array([0, 0, 1, 1])
    arrays = {
        "rgb": np.broadcast_to((disc[..., None] * np.array([200, 120, 60])).astype(np.uint8), (4, 64, 64, 3)),
        "alpha": np.broadcast_to((disc * 255).astype(np.uint8), (4, 64, 64)),
        "part": np.broadcast_to(part, (4, 64, 64)),
        "camera": orbit(torch.tensor([0.0, 20.0, -10.0, 5.0]), torch.zeros(4)).numpy(),
        "identity": person[:, None] * np.ones((4, model.num_identity), dtype=np.float32) * 0.1,
        "expression": np.zeros((4, 52), dtype=np.float32),
        "code": np.array([[0.8, 0.5, 0.3, 0.2], [0.5, 0.5, 0.5, 0.7]], dtype=np.float32)[person],
        "person": person,
    }
    arrays = {
        name: np.ascontiguousarray(value.astype(np.float32) if value.dtype == np.float64 else value)
        for name, value in arrays.items()
    }
    save_file(
        arrays, folder / "heads-000-00000.safetensors", {"code_fields": json.dumps(FIELDS), "parts": json.dumps(PARTS)}
    )
    return folder


def test_patch_rays_are_those_of_the_whole_image():
    label = orbit(torch.tensor([15.0]), torch.tensor([-5.0]))
    whole = camera_rays(label, 64).directions.view(64, 64, 3)
    patch = patch_rays(label, (7, 11), 1, 64).directions.view(PATCH, PATCH, 3)
    assert torch.allclose(patch, whole[11 : 11 + PATCH, 7 : 7 + PATCH], atol=1e-6)
    coarse = patch_rays(label, (0, 0), 2, 64).directions.view(PATCH, PATCH, 3)
    assert torch.allclose(coarse, camera_rays(label, 32).directions.view(32, 32, 3), atol=1e-6)


def test_views_of_a_head_share_a_state(shards):
    data = HeadImages(shards)
    assert len(data) == 4
    assert data.num_states == 2
    batch = data.patches(np.array([0, 1]), 2, 1, PatchSampling(), np.random.default_rng(0))
    assert batch.colour.shape == (4, 3, PATCH, PATCH)
    assert batch.rays.origins.shape == (2, 2 * PATCH * PATCH, 3)
    views = batch.rays.origins.view(2, 2, -1, 3)[:, :, 0]
    assert (views[:, 0] - views[:, 1]).norm(dim=-1).min() > 0.05


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no heads"):
        HeadImages(tmp_path)


def test_training_learns_and_resumes(shards, tmp_path):
    data = HeadImages(shards)
    config = TrainingConfig(minutes=60, heads=2, views=1)
    trainer = Trainer(config, CONFIG, data, tmp_path)
    before = evaluate(trainer.generator, data, num_images=2)
    losses = [trainer.step(PatchSampling((2,), (1.0,)))["total"] for _ in range(40)]
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:3])
    assert evaluate(trainer.averaged(), data, num_images=2)["psnr"] > before["psnr"]
    trainer.save()
    resumed = Trainer(config, CONFIG, data, tmp_path)
    assert resumed.load()
    assert (resumed.steps, resumed.images) == (40, 80)
    for name, value in trainer.generator.state_dict().items():
        assert torch.equal(value, resumed.generator.state_dict()[name]), name
    state = resumed.optimizer.state_dict()["state"]
    assert all(
        torch.equal(state[i]["exp_avg"], s["exp_avg"]) for i, s in trainer.optimizer.state_dict()["state"].items()
    )
    assert resumed.step(PatchSampling((2,), (1.0,)))["total"] < np.mean(losses[:3])


def test_the_discriminator_learns_to_tell_and_resumes(shards, tmp_path):
    data = HeadImages(shards)
    config = TrainingConfig(minutes=60, heads=2, views=1, adversarial_weight=0.1, adversarial_from=0.0, r1_every=4)
    trainer = Trainer(config, CONFIG, data, tmp_path)
    start = [trainer.step(PatchSampling((2,), (1.0,))) for _ in range(6)]
    assert all(np.isfinite(terms["adversarial"]) for terms in start)
    batch = data.patches(np.array([0, 1]), 1, 2, PatchSampling(), np.random.default_rng(0))
    fake = torch.zeros(2, 4, PATCH, PATCH)
    learnt = [trainer.adversary.learn(fake, batch) for _ in range(30)]
    assert learnt[-1]["discriminator"] < 0.3  # chance: 2 log 2
    assert learnt[-1]["margin"] > 2
    assert max(abs(step["margin"]) for step in learnt) < 100
    trainer.save()
    resumed = Trainer(config, CONFIG, data, tmp_path)
    assert resumed.load()
    for name, value in trainer.adversary.state().items():
        assert torch.equal(value, resumed.adversary.state()[name]), name


def test_gradients_of_the_discriminator_reach_the_patches_only():
    adversary = Adversary(1e-3, 1.0, 4, torch.device("cpu"))
    camera = orbit(torch.zeros(3), torch.zeros(3))
    fake = torch.rand(3, 4, PATCH, PATCH, requires_grad=True)
    batch = PatchBatch(torch.arange(3), None, fake[:, :3], fake[:, 3:], None, camera, 4)
    adversary.generator_loss(fake, batch).backward()
    assert fake.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in adversary.network.parameters())


def test_a_resumed_run_goes_on_in_its_mlflow_record(tmp_path):
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"png")
    first = TrainingTracker(uri, tmp_path, {"minutes": 1.0})
    first.log("train", {"total": 0.5}, 60)
    again = TrainingTracker(uri, tmp_path, {"minutes": 1.0})
    again.log("train", {"total": 0.4}, 120)
    again.picture(sheet)
    assert again.run_id == first.run_id
    history = again.client.get_metric_history(first.run_id, "train/total")
    assert [(metric.step, metric.value) for metric in history] == [(60, 0.5), (120, 0.4)]
    assert [file.path for file in again.client.list_artifacts(first.run_id, "sheets")] == ["sheets/sheet.png"]


@pytest.mark.gpu
def test_a_step_runs_on_a_gpu(shards, tmp_path):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    config = TrainingConfig(heads=2, views=1, adversarial_weight=0.1, adversarial_from=0.0, device="cuda")
    trainer = Trainer(config, CONFIG, HeadImages(shards), tmp_path)
    trainer.move()
    losses = [trainer.step(PatchSampling((2,), (1.0,)))["total"] for _ in range(3)]
    assert np.isfinite(losses).all()
    trainer.save()
    assert Trainer(config, CONFIG, HeadImages(shards), tmp_path).load()


def test_a_sheet_is_a_picture(shards, tmp_path):
    data = HeadImages(shards)
    trainer = Trainer(TrainingConfig(), CONFIG, data, tmp_path)
    assert write_sheet(trainer.generator, data, tmp_path / "sheet.png", columns=1).stat().st_size > 1000
