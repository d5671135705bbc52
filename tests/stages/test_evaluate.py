"""Evaluate scores what is there: perfect copies pass, wrecks are rejected with the reason, angles are measured."""

import numpy as np
import pytest
import torch

from galatea.animation.video import encode_mp4
from galatea.errors import ConfigError
from galatea.faces.alignment import portrait_crop
from galatea.faces.packs import open_pack
from galatea.images import encode_png, encode_webp, to_tensor
from stages.evaluate import EvaluateConfig, EvaluateStage

pytestmark = pytest.mark.weights


@pytest.fixture(scope="module")
def stage(weights) -> EvaluateStage:
    made = EvaluateStage(EvaluateConfig(clip_frames=2))
    made.setup(torch.device("cpu"))
    return made


@pytest.fixture(scope="module")
def portrait(weights, astronaut) -> dict:
    pack = open_pack("open")
    crop = portrait_crop(astronaut, pack.detect([astronaut])[0][0].landmarks_5, size=256).image
    return {
        "subject_id": "a_0",
        "portrait_id": "a_0",
        "pixels": crop,
        "crop": encode_webp(crop),
        "matte": encode_png(np.full((256, 256), 255, dtype=np.uint8)),
        "landmarks": pack.landmarks(to_tensor([crop])).points[0].numpy(),
        "reconstruction": encode_webp(crop),
        "clip": None,
        "clip_matrix": None,
    }


def test_a_perfect_reconstruction_is_accepted(stage, portrait) -> None:
    [[row]] = stage.process([portrait])
    assert row["kind"] == "portrait"
    assert row["verdict"] == "accepted"
    assert row["identity_similarity"] == pytest.approx(1.0, abs=1e-3)
    assert row["psnr"] > 60
    assert row["landmark_error"] < 0.01
    assert row["yaw_error_deg"] is None
    assert {column.name for column in stage.produces} == set(row)


def test_noise_is_rejected_and_says_why(stage, portrait) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    [[row]] = stage.process([portrait | {"reconstruction": encode_png(noise)}])
    assert row["verdict"] == "rejected"
    assert "psnr" in row["verdict_reason"]


def test_a_clip_is_measured_against_what_was_asked(stage, portrait) -> None:
    clip = encode_mp4(np.stack([portrait["pixels"]] * 4), 25)
    asked = {"asked_pitch_deg": np.zeros(4), "asked_expression": np.zeros((4, 52))}
    near, far = (
        portrait | {"subject_id": "a_0.none.turn", "clip": clip, "asked_yaw_deg": np.full(4, yaw)} | asked
        for yaw in (0.0, 60.0)
    )
    [[first], [second]] = stage.process([near, far])
    assert first["kind"] == "clip"
    assert first["psnr"] is None
    assert first["identity_similarity"] > 0.9
    assert first["view_landmark_error"] is None, "a clip from one side says nothing about views"
    assert second["yaw_error_deg"] > 30
    assert second["verdict"] == "rejected"
    assert "yaw_error_deg" in second["verdict_reason"]


@pytest.mark.parametrize(("height", "width"), [(700, 901), (640, 640)])
def test_a_clip_of_the_whole_photo_has_the_figures_of_its_crop(stage, portrait, astronaut, height, width) -> None:
    photo = np.full((height, width, 3), 90, np.uint8)
    photo[50:562, 90:602] = astronaut
    crop = portrait_crop(photo, open_pack("open").detect([photo])[0][0].landmarks_5)
    asked = {"asked_yaw_deg": np.zeros(2), "asked_pitch_deg": np.zeros(2), "asked_expression": np.zeros((2, 52))}
    clips = {"crop": (crop.image, None), "whole": (photo, crop.matrix.astype(np.float32))}
    records = [
        portrait
        | {"subject_id": name, "crop": encode_webp(crop.image), "clip_matrix": matrix}
        | {"clip": encode_mp4([frame] * 2, 25), **asked}
        for name, (frame, matrix) in clips.items()
    ]
    [[of_crop], [of_whole]] = stage.process(records)
    assert of_whole["identity_similarity"] == pytest.approx(of_crop["identity_similarity"], abs=0.03)
    for name in ("yaw_error_deg", "pitch_error_deg"):
        assert of_whole[name] == pytest.approx(of_crop[name], abs=0.5)
    assert of_whole["expression_error"] == pytest.approx(of_crop["expression_error"], abs=0.01)


def test_frames_that_no_single_head_explains_are_rejected(portrait) -> None:
    stage = EvaluateStage(EvaluateConfig(min_view_spread_deg=0.5))
    stage.setup(torch.device("cpu"))
    narrow = np.pad(portrait["pixels"][:, ::2], ((0, 0), (64, 64), (0, 0)), mode="edge")
    low = np.pad(portrait["pixels"][::2], ((64, 64), (0, 0), (0, 0)), mode="edge")
    clip = encode_mp4(np.stack([portrait["pixels"], narrow, low]), 25)
    asked = {"asked_yaw_deg": np.zeros(3), "asked_pitch_deg": np.zeros(3), "asked_expression": np.zeros((3, 52))}
    [[row]] = stage.process([portrait | {"subject_id": "a_0.none.turn", "clip": clip} | asked])
    assert row["view_psnr"] < 25
    assert "view_landmark_error" in row["verdict_reason"]


@pytest.mark.parametrize(
    "values", [{"max_view_landmark_error": -1.0}, {"clip_frames": 0}, {"min_psnr": -1.0}, {"faces_pack": ""}]
)
def test_a_wrong_setting_is_named(values) -> None:
    with pytest.raises(ConfigError, match=f"evaluate.{next(iter(values))}"):
        EvaluateConfig(**values)
