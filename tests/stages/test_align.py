import numpy as np
import pytest
import torch

from galatea.cameras import project
from galatea.errors import ConfigError, InputError, NoFaceError
from galatea.images import decode_image, encode_png
from stages.align import AlignConfig, AlignStage, sharpness
from stages.base import Kind


@pytest.fixture(scope="module")
def stage(weights):
    stage = AlignStage(AlignConfig())
    stage.setup(torch.device("cpu"))
    return stage


def record(image, photo_id="0123456789abcdef"):
    return {"photo_id": photo_id, "photo": encode_png(image), "uri": "memory://photo.png"}


@pytest.fixture(scope="module")
def rows(stage, astronaut):
    small = np.ascontiguousarray(astronaut[0:256:8, 96:352:8])
    two = np.full((560, 640, 3), 127, np.uint8)
    two[:512, :512] = astronaut
    two[520:552, 560:592] = small
    return stage.process([record(astronaut), record(two, "fedcba9876543210")])


def test_every_declared_column_is_there_with_its_shape(stage, rows):
    for row in (row for portraits in rows for row in portraits):
        assert set(row) == {column.name for column in stage.produces}
        for column in stage.produces:
            if column.kind is Kind.TENSOR:
                assert row[column.name].shape == column.shape
                assert row[column.name].dtype == np.float32
                assert np.isfinite(row[column.name]).all()


def test_portrait_is_well_fitted(rows):
    row = rows[0][0]
    assert row["portrait_id"] == "0123456789abcdef_0"
    assert row["is_usable"]
    assert row["fit_residual"] < 0.03
    assert abs(row["yaw_deg"]) < 10
    assert decode_image(row["crop"]).shape == (512, 512, 3)
    matte = decode_image(row["matte"])
    assert matte[200:300, 200:300].mean() > 230


def test_batch_and_single_record_agree(stage, rows, astronaut):
    alone = stage.process([record(astronaut)])[0][0]
    assert alone["crop"] == rows[0][0]["crop"]
    assert np.allclose(alone["camera"], rows[0][0]["camera"], atol=1e-3)


def test_camera_puts_the_eyes_where_the_photo_has_them(rows):
    from galatea.morphable.head import HeadModel

    row, model = rows[0][0], HeadModel.load()
    identity, expression = (torch.from_numpy(row[name])[None] for name in ("identity_coeffs", "expression_coeffs"))
    vertices = model.vertices(identity, expression)
    image, _ = project(model.eye_centres(vertices), torch.from_numpy(row["camera"])[None])
    left_and_right = row["landmarks"][[473, 468]]
    assert np.abs(image[0].numpy() - left_and_right).max() < 0.03


def test_small_face_is_listed_with_a_reason_and_loses_no_other(stage, astronaut):
    strict = AlignStage(AlignConfig(min_face_px=400))
    strict.setup(torch.device("cpu"))
    row = strict.process([record(astronaut)])[0][0]
    assert not row["is_usable"]
    assert "400" in row["usable_reason"]


def test_photo_without_a_face_and_damaged_photo_are_record_errors(stage):
    with pytest.raises(NoFaceError, match="0123456789abcdef"):
        stage.process([record(np.full((80, 80, 3), 200, np.uint8))])
    with pytest.raises(InputError):
        stage.process([{"photo_id": "x", "photo": b"garbage", "uri": "x"}])


def test_models_are_named_without_loading(weights):
    parts = AlignStage(AlignConfig()).models()
    assert {"facemesh", "anny_head", "facemesh_correspondence"} <= {part.name for part in parts}
    assert all(part.is_commercial_use_allowed for part in parts)


def test_sharpness_falls_with_blur(astronaut):
    import cv2

    assert sharpness(cv2.GaussianBlur(astronaut, (0, 0), 4)) < 0.5 * sharpness(astronaut)


@pytest.mark.parametrize(
    "bad", [{"faces_pack": ""}, {"min_face_px": 2}, {"max_faces": 0}, {"max_pixels": 0}, {"face_batch": 0}]
)
def test_settings_name_the_wrong_field(bad):
    with pytest.raises(ConfigError, match=f"align.{next(iter(bad))}"):
        AlignConfig(**bad)
