"""The invert and animate stages on a small generator: rows, deterministic bytes, and errors that name their record."""

import cv2
import numpy as np
import pytest
import torch

from galatea.animation.motion import Motion
from galatea.animation.video import read_video
from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.checkpoint import save_generator
from galatea.eg3d.generator import TriPlaneGenerator
from galatea.eg3d.provenance import GeneratorFacts
from galatea.errors import ConfigError, InputError, WeightsError
from galatea.faces.alignment import cut_crop
from galatea.images import MAX_PIXELS, decode_image, encode_png, encode_webp
from galatea.inversion.capsule import Capsule
from galatea.morphable.baking import NUM_IDENTITY
from stages.animate import AnimateConfig, AnimateStage, resampled
from stages.edit import EditConfig, EditStage
from stages.invert import InvertConfig, InvertStage
from tests.small_generators import SMALL, SMALL_PLAIN


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Folder of a small generator's checkpoint."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("generator")
    save_generator(
        AnchoredGenerator(SMALL), folder, GeneratorFacts(name="small", kind="anchored", licence="Apache-2.0")
    )
    return str(folder)


@pytest.fixture
def portrait(astronaut):
    """A record as align makes it; the landmarks are drawn, not read."""
    draw = np.random.default_rng(0)
    return {
        "portrait_id": "a1b2_0",
        "crop": encode_webp(astronaut),
        "matte": encode_png(np.full((512, 512), 255, np.uint8)),
        "landmarks": (0.5 + 0.1 * draw.standard_normal((478, 2))).astype(np.float32),
        "camera": orbit(torch.zeros(1), torch.zeros(1))[0].numpy(),
        "identity_coeffs": np.zeros(NUM_IDENTITY, np.float32),
        "expression_coeffs": np.zeros(52, np.float32),
        "is_usable": True,
        "usable_reason": "",
    }


@pytest.fixture
def invert_stage(checkpoint, weights):
    config = InvertConfig(
        generator=checkpoint, num_candidates=2, projection_steps=1, tuning_steps=2, projection_resolution=32
    )
    stage = InvertStage(config)
    stage.setup(torch.device("cpu"))
    return stage


def test_a_portrait_becomes_one_row_with_its_capsule(invert_stage, portrait):
    ((row,),) = invert_stage.process([portrait])
    assert {column.name for column in invert_stage.produces} == set(row)
    capsule = Capsule.from_bytes(row["capsule"])
    assert capsule.generator_sha256 == invert_stage.models()[0].sha256
    assert decode_image(row["reconstruction"]).shape == (64, 64, 3)
    assert decode_image(row["turned"]).shape == (192, 5 * 192, 3)
    assert row["psnr"] > 0
    ((again,),) = invert_stage.process([portrait])
    assert again["capsule"] == row["capsule"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"is_usable": False, "usable_reason": "face of 12 pixels"}, "a1b2_0 cannot be inverted: face of 12 pixels"),
        ({"crop": b"no picture"}, "picture|photo|image"),
        ({"camera": np.full(25, np.nan, np.float32)}, r"a1b2_0, camera.*finite"),
        ({"matte": encode_png(np.zeros((8, 8), np.uint8))}, r"a1b2_0.*\(512, 512\).*\(8, 8\)"),
    ],
)
def test_a_bad_portrait_is_named(invert_stage, portrait, change, message):
    with pytest.raises(InputError, match=message):
        invert_stage.process([portrait | change])


def clip_record(portrait, checkpoint_sha256, motion):
    draw = torch.Generator().manual_seed(0)
    capsule = Capsule(
        w_plus=torch.randn(num_ws(), 16, generator=draw),
        camera=torch.from_numpy(portrait["camera"]),
        identity=torch.zeros(NUM_IDENTITY),
        expression=torch.zeros(52),
        generator="small",
        generator_sha256=checkpoint_sha256,
    )
    return {
        "clip_id": "a1b2_0.none.nod",
        "capsule": capsule.to_bytes(),
        "crop": portrait["crop"],
        "matte": portrait["matte"],
        "motion": motion.to_bytes(),
    }


def num_ws():
    return AnchoredGenerator(SMALL).num_ws


@pytest.fixture
def nod():
    angles = torch.tensor([[0.0, 0, 0], [10, 0, 0], [20, 5, 0], [10, 0, 0]])
    return Motion.build(name="nod", fps=20, kind="relative", expression=torch.zeros(4, 52), angles_deg=angles)


def animate_stage(checkpoint, **settings):
    stage = AnimateStage(
        AnimateConfig(**{"size": 64, "resolution": 32, "batch_frames": 3, **settings}, generator=checkpoint)
    )
    stage.setup(torch.device("cpu"))
    return stage


def test_a_motion_becomes_a_clip_of_its_length(checkpoint, portrait, nod):
    stage = animate_stage(checkpoint)
    record = clip_record(portrait, stage.models()[0].sha256, nod)
    ((row,),) = stage.process([record])
    assert {column.name for column in stage.produces} == set(row)
    assert row["num_frames"] == 4
    assert row["asked_yaw_deg"].tolist() == pytest.approx([0, 10, 20, 10], abs=1e-3)
    assert row["asked_expression"].shape == (4, 52)
    assert len(read_video(row["clip"]).frames) == 4
    assert decode_image(row["sheet"]).shape == (64, 4 * 64, 3)


def test_how_many_frames_are_rendered_at_once_changes_only_roundings(checkpoint, portrait, nod):
    clips = []
    for batch_frames in (1, 4):
        stage = animate_stage(checkpoint, batch_frames=batch_frames, crf=0)
        ((row,),) = stage.process([clip_record(portrait, stage.models()[0].sha256, nod)])
        clips.append(read_video(row["clip"]).frames.astype(int))
    assert np.abs(clips[0] - clips[1]).mean() < 0.05


@pytest.fixture(scope="module")
def plain_checkpoint(tmp_path_factory):
    """Folder of a small checkpoint of EG3D's own kind, which knows no head."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("plain")
    save_generator(TriPlaneGenerator(SMALL_PLAIN), folder, GeneratorFacts(name="plain", kind="eg3d", licence="none"))
    return str(folder)


def plain_capsule(sha256):
    return Capsule(
        w_plus=torch.zeros(TriPlaneGenerator(SMALL_PLAIN).num_ws, SMALL_PLAIN.w_dim),
        camera=orbit(torch.zeros(1), torch.zeros(1))[0],
        identity=torch.zeros(0),
        expression=torch.zeros(0),
        generator="plain",
        generator_sha256=sha256,
    )


def test_an_imported_generator_turns_heads_and_says_that_it_has_no_expressions(plain_checkpoint, portrait, nod, caplog):
    stage = animate_stage(plain_checkpoint)
    assert "no head model" in caplog.text
    sha256 = stage.models()[0].sha256
    record = clip_record(portrait, sha256, nod) | {"capsule": plain_capsule(sha256).to_bytes()}
    ((row,),) = stage.process([record])
    assert row["num_frames"] == 4
    assert row["asked_yaw_deg"].tolist() == pytest.approx([0, 10, 20, 10], abs=1e-3)


def test_method_paper_needs_the_head_fit_and_a_generator_without_a_head(checkpoint, plain_checkpoint, portrait, nod):
    with pytest.raises(ConfigError, match=r"animate\.method"):
        AnimateStage(AnimateConfig(generator=checkpoint, method="paper")).models()
    stage = animate_stage(plain_checkpoint, method="paper", transfer_steps=1, transfer_tuning_steps=1)
    assert {"identity_coeffs", "expression_coeffs"} <= set(stage.requires)
    sha256 = stage.models()[0].sha256
    record = clip_record(portrait, sha256, nod) | {"capsule": plain_capsule(sha256).to_bytes()}
    coefficients = {name: portrait[name] for name in ("identity_coeffs", "expression_coeffs")}
    ((row,),) = stage.process([record | coefficients])
    assert len(read_video(row["clip"]).frames) == 4


def test_edits_of_an_imported_generator_are_refused_before_anything_runs(plain_checkpoint):
    EditStage(EditConfig(generator=plain_checkpoint, edits=())).models()
    with pytest.raises(ConfigError, match="edit=none"):
        EditStage(EditConfig(generator=plain_checkpoint)).models()


def test_a_clip_pasted_back_has_the_photo_s_size_and_says_where_the_crop_is(checkpoint, portrait, nod, astronaut):
    photo = np.full((541, 701, 3), 90, np.uint8)
    photo[20:532, 100:612] = astronaut
    matrix = np.array([[1.0, 0, -100], [0, 1.0, -20]], np.float32)
    plain, whole = animate_stage(checkpoint), animate_stage(checkpoint, paste_back=True, paste_max_side=350)
    assert "photo" in whole.requires
    assert "photo" not in AnimateStage.requires
    record = clip_record(portrait, whole.models()[0].sha256, nod)
    ((row,),) = whole.process([record | {"photo": encode_png(photo), "uri": "x", "crop_matrix": matrix}])
    frames = read_video(row["clip"]).frames
    assert frames.shape[1:] == (270, 350, 3)
    ((of_crop,),) = plain.process([record])
    assert of_crop["clip_matrix"] is None
    for frame, wanted in zip(frames, read_video(of_crop["clip"]).frames, strict=True):
        crop = cut_crop(frame, row["clip_matrix"]).reshape(64, 8, 64, 8, 3).mean((1, 3))
        assert np.corrcoef(crop[4:-4, 4:-4].ravel(), wanted[4:-4, 4:-4].ravel())[0, 1] > 0.97
        shift, _ = cv2.phaseCorrelate(crop.mean(-1), wanted.mean(-1), cv2.createHanningWindow((64, 64), cv2.CV_64F))
        assert shift == pytest.approx((0, 0), abs=0.1)


@pytest.mark.slow
def test_a_photo_of_any_size_that_align_accepted_is_pasted_into(checkpoint, portrait, nod):
    stage = animate_stage(checkpoint, paste_back=True, paste_max_side=64)
    record = clip_record(portrait, stage.models()[0].sha256, nod)
    large = {"photo": encode_png(np.zeros((MAX_PIXELS // 1000 + 1, 1000), np.uint8)), "uri": "x"}
    matrix = np.array([[0.2, 0, 0], [0, 0.2, 0]], np.float32)
    ((row,),) = stage.process([record | large | {"crop_matrix": matrix}])
    assert row["num_frames"] == 4


def test_a_capsule_of_another_generator_aborts(checkpoint, portrait, nod):
    stage = animate_stage(checkpoint)
    with pytest.raises(WeightsError, match="sha256"):
        stage.process([clip_record(portrait, "00" * 32, nod)])


@pytest.mark.parametrize("column", ["capsule", "motion", "crop", "matte"])
def test_a_damaged_column_is_an_input_error(checkpoint, portrait, nod, column):
    stage = animate_stage(checkpoint)
    record = clip_record(portrait, stage.models()[0].sha256, nod)
    with pytest.raises(InputError):
        stage.process([record | {column: b"damaged"}])


def test_edited_portraits_take_only_the_drivers_of_the_settings(checkpoint):
    stage = AnimateStage(AnimateConfig(generator=checkpoint, edited_with=("turn",)))
    assert stage.wants({"edit_id": "a_0.none", "driver_id": "smile"})
    assert stage.wants({"edit_id": "a_0.older", "driver_id": "turn"})
    assert not stage.wants({"edit_id": "a_0.older", "driver_id": "smile"})


def test_resampling_keeps_the_length_in_seconds():
    assert resampled(50, 25.0, 12.5).tolist() == list(range(0, 50, 2))
    assert resampled(3, 25.0, 25.0).tolist() == [0, 1, 2]
    assert resampled(1, 25.0, 1.0).tolist() == [0]


@pytest.mark.parametrize(("key", "value"), [("crf", 99), ("size", 63), ("fps", -1), ("detail", 2.0)])
def test_bad_animate_settings_name_their_field(key, value):
    with pytest.raises(ConfigError, match=key):
        AnimateConfig(**{key: value})


@pytest.mark.parametrize(("key", "value"), [("batch_size", 0), ("num_candidates", 0), ("tuning_resolution", 3)])
def test_bad_invert_settings_name_their_field(key, value):
    with pytest.raises(ConfigError, match=key):
        InvertConfig(**{key: value})
