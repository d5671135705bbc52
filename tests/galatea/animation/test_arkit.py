import pytest
import torch

from galatea.animation.arkit import from_arkit_csv
from galatea.errors import DriverError
from galatea.morphable.actions import ACTION_INDEX, ARKIT_ACTIONS

HEAD = ["HeadYaw", "HeadPitch", "HeadRoll"]
EYES = [f"{side}Eye{axis}" for side in ("Left", "Right") for axis in ("Yaw", "Pitch", "Roll")]
NAMES = [name[0].upper() + name[1:] for name in reversed(ARKIT_ACTIONS)]


def recording(num_rows=90, rate=30, names=NAMES, extra=(*HEAD, *EYES), dropped=(), change=None):
    lines = [",".join(["Timecode", "BlendShapeCount", *names, *extra])]
    for index in range(num_rows):
        if index in dropped:
            continue
        row = dict.fromkeys((*names, *extra), "0.0")
        row["JawOpen"] = f"{index % 100 / 100:.4f}"
        row["HeadYaw"] = f"{index / 1000:.5f}"
        seconds, frame = divmod(index, rate)
        lines.append(",".join([f"10:59:{seconds:02d}:{frame:02d}.123", "61", *(row[n] for n in (*names, *extra))]))
    text = "\n".join(lines) + "\n"
    return (change(text) if change else text).encode()


def test_columns_are_found_by_name_in_any_order():
    motion = from_arkit_csv(recording())
    assert motion.num_frames == 90
    assert motion.fps == 30
    assert motion.expression[50, ACTION_INDEX["jawOpen"]] == pytest.approx(0.5, abs=1e-4)
    assert motion.expression.sum() == pytest.approx(motion.expression[:, ACTION_INDEX["jawOpen"]].sum())


def test_head_turning_to_its_left_points_the_nose_to_the_image_right():
    motion = from_arkit_csv(recording())
    assert motion.kind == "relative"
    assert motion.yaw_deg[-1] < motion.yaw_deg[0]
    assert motion.yaw_deg[0] - motion.yaw_deg[-1] == pytest.approx(0.089 * 57.2958, abs=0.01)


def test_dropped_rows_are_interpolated_and_flagged():
    motion = from_arkit_csv(recording(dropped=(10, 11, 12)))
    assert motion.num_frames == 90
    assert torch.nonzero(~motion.is_valid)[:, 0].tolist() == [10, 11, 12]
    assert motion.expression[11, ACTION_INDEX["jawOpen"]] == pytest.approx(0.11, abs=1e-4)


def test_recording_without_head_angles_keeps_the_head_still():
    assert from_arkit_csv(recording(extra=())).angles_deg.abs().max() == 0


def test_rate_is_inferred_or_given():
    assert from_arkit_csv(recording(180, rate=60)).fps == 60
    assert from_arkit_csv(recording(20, rate=60), fps=60).fps == 60


def test_length_is_bounded():
    assert [from_arkit_csv(recording(180, rate=rate), max_seconds=2).num_frames for rate in (30, 60)] == [60, 120]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header"),
        (b"\xff\xfe\x00binary", "UTF-8"),
        (b"Timecode,BlendShapeCount\n00:00:00:00,0\n", "missing"),
        (recording(change=lambda text: text.replace("0.0500", "abc")), "row 6, jawopen"),
        (recording(change=lambda text: text.replace("0.0500", "nan")), "finite"),
        (recording(change=lambda text: text.replace("10:59:00:05", "5 o'clock")), "timecode"),
        (recording(change=lambda text: text.replace("10:59:00:05", "09:59:00:05")), "goes back"),
        (recording(change=lambda text: text.replace("0.0500", "50.0")), r"\[0, 1\]"),
        (recording(change=lambda text: text.replace("MouthPucker", "JawOpen")), "missing"),
    ],
)
def test_bad_files_say_what_is_wrong(data, message):
    with pytest.raises(DriverError, match=message):
        from_arkit_csv(data)
