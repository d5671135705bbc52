import pytest
import torch

from galatea.animation.motion import Motion
from galatea.errors import ConfigError, DriverError
from stages.drive import DriveConfig, DriveStage


@pytest.fixture
def stage(weights):
    stage = DriveStage(DriveConfig(fps=12))
    stage.setup(torch.device("cpu"))
    return stage


def request(kind, name, data=b""):
    return {"driver_id": f"{kind}-{name}", "kind": kind, "name": name, "data": data}


def test_names_become_motions(stage):
    rows = stage.process([request("preset", "smile"), request("camera", "turn")])
    assert [len(portraits) for portraits in rows] == [1, 1]
    for (row,) in rows:
        assert set(row) == {column.name for column in stage.produces}
        motion = Motion.from_bytes(row["motion"])
        assert (motion.num_frames, motion.fps) == (row["num_frames"], 12)
        assert row["num_valid_frames"] == row["num_frames"]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (request("preset", "smirk"), "smile"),
        (request("camera", "zoom"), "turn"),
        (request("dance", "x", b"data"), "kind"),
        (request("video", "clip"), "empty"),
        (request("video", "clip", b"not a video"), "readable video"),
        (request("arkit", "take", b"a,b\n1,2\n"), "Live Link"),
    ],
)
def test_bad_drivers_are_driver_errors(stage, record, message):
    with pytest.raises(DriverError, match=message):
        stage.process([record])


@pytest.mark.parametrize(
    "bad", [{"fps": 0}, {"video_fps": -1}, {"max_seconds": 0}, {"amplitude": 9}, {"faces_pack": ""}]
)
def test_settings_name_the_wrong_field(bad):
    with pytest.raises(ConfigError, match=f"drive.{next(iter(bad))}"):
        DriveConfig(**bad)
