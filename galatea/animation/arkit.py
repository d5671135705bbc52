"""Read the coefficient files of Live Link Face: ARKit's 52 actions and head angles, one row a frame."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence

import torch
from torch import Tensor

from galatea.animation.motion import Motion
from galatea.errors import DriverError
from galatea.morphable.actions import ARKIT_ACTIONS

USUAL_RATES = (24.0, 25.0, 30.0, 60.0)
HEAD_COLUMNS = ("headyaw", "headpitch", "headroll")
MAX_ROWS = 36_000
"""Ten minutes at 60 frames per second."""
_TIMECODE = re.compile(r"(\d+):([0-5]?\d):([0-5]?\d)[:;](\d+(?:\.\d+)?)")


def from_arkit_csv(data: bytes, name: str = "arkit", fps: float | None = None, max_seconds: float = 60.0) -> Motion:
    """Read a Live Link Face recording.

    The header is `Timecode,BlendshapeCount,EyeBlinkLeft,...,HeadYaw,HeadPitch,HeadRoll,LeftEyeYaw,...`; names are
    compared without case, columns may stand in any order. All 52 actions are needed; the head angles (radians) may be
    missing, and the eye angles are not read because the eyeLook actions say the same. Rows that the phone dropped are
    interpolated and marked as not valid.

    Args:
        data: the bytes of the CSV file, UTF-8.
        name: name of the motion.
        fps: frames per second of the timecode; None infers it from the frame numbers.
        max_seconds: what comes later is left out.

    Returns:
        A motion whose head angles are relative to their median (where the phone stood says nothing about the head).
        Unreal's angles are taken as: yaw > 0 turns the head to its own left, pitch > 0 lifts the chin, roll > 0
        tilts it to its own right.

    Raises:
        DriverError: naming the row and column at fault.
    """
    header, rows = _read_rows(data)
    columns = _columns(header)
    frame_numbers, rate = _timeline([row[columns["timecode"]] for row in rows], fps)
    has_head = all(column in columns for column in HEAD_COLUMNS)
    wanted = [action.lower() for action in ARKIT_ACTIONS] + (list(HEAD_COLUMNS) if has_head else [])
    values = torch.tensor([[_number(row, index, columns[c], c) for c in wanted] for index, row in enumerate(rows)])
    expression = values[:, : len(ARKIT_ACTIONS)]
    if bool((expression < -0.01).any()) or bool((expression > 1.5).any()):
        raise DriverError("ARKit file: expected coefficients in [0, 1], got values outside; are they percentages?")
    angles = torch.zeros(len(rows), 3)
    if has_head:
        yaw, pitch, roll = (values[:, len(ARKIT_ACTIONS) :] * 180 / math.pi).unbind(1)
        angles = torch.stack([-yaw, -pitch, roll], dim=1)
        angles = angles - angles.median(dim=0).values
    max_frames = max(1, round(max_seconds * rate))
    signal, is_valid = _resample(frame_numbers, torch.cat([expression.clamp(0, 1), angles], dim=1), max_frames)
    return Motion.build(
        name=name, fps=rate, kind="relative", expression=signal[:, :-3], angles_deg=signal[:, -3:], is_valid=is_valid,
        own_share=torch.zeros(signal.shape[0]),
    )  # fmt: skip


def _read_rows(data: bytes) -> tuple[list[str], list[list[str]]]:
    try:
        text = data.decode("utf-8-sig")
        lines = [row for row in csv.reader(io.StringIO(text), strict=True) if any(cell.strip() for cell in row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DriverError(f"ARKit file: expected UTF-8 CSV, got {len(data)} other bytes ({error})") from error
    if len(lines) < 2:
        raise DriverError(f"ARKit file: expected a header and at least one row, got {len(lines)} lines")
    if len(lines) - 1 > MAX_ROWS:
        raise DriverError(f"ARKit file: expected at most {MAX_ROWS} rows, got {len(lines) - 1}; cut the recording")
    return lines[0], lines[1:]


def _columns(header: Sequence[str]) -> dict[str, int]:
    columns = {name.strip().lower(): index for index, name in enumerate(header)}
    missing = [name for name in ("Timecode", *ARKIT_ACTIONS) if name.lower() not in columns]
    if missing:
        shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DriverError(
            f"ARKit file: expected the Live Link Face columns, {len(missing)} of them are missing ({shown})"
        )
    if len(columns) != len(header):
        raise DriverError("ARKit file: expected every column once, a name occurs twice in the header")
    return columns


def _number(row: Sequence[str], index: int, column: int, name: str) -> float:
    if column >= len(row):
        raise DriverError(f"ARKit file, row {index + 1}: expected {column + 1} or more cells, got {len(row)}")
    try:
        value = float(row[column])
    except ValueError as error:
        raise DriverError(f"ARKit file, row {index + 1}, {name}: expected a number, got {row[column]!r}") from error
    if not math.isfinite(value):
        raise DriverError(f"ARKit file, row {index + 1}, {name}: expected a finite number, got {value}")
    return value


def _timeline(timecodes: Sequence[str], fps: float | None) -> tuple[Tensor, float]:
    """Return the frame number of each row since the first, and the rate that the timecodes count in."""
    seconds, numbers = [], []
    for index, timecode in enumerate(timecodes):
        match = _TIMECODE.fullmatch(timecode.strip())
        if match is None:
            raise DriverError(f"ARKit file, row {index + 1}: expected timecode HH:MM:SS:FF.sub, got {timecode!r}")
        hours, minutes, secs, frame = match.groups()
        seconds.append(int(hours) * 3600 + int(minutes) * 60 + int(secs))
        numbers.append(float(frame))
    highest = max(numbers)
    rate = fps or next((usual for usual in USUAL_RATES if len(numbers) > usual and highest < usual), USUAL_RATES[-1])
    if highest >= rate:
        raise DriverError(f"ARKit file: expected frame numbers below {rate:g} frames per second, got {highest:g}")
    frames = torch.tensor(seconds, dtype=torch.float64) * rate + torch.tensor(numbers, dtype=torch.float64)
    frames = frames - frames[0]
    if bool((frames[1:] < frames[:-1]).any()):
        row = int(torch.nonzero(frames[1:] < frames[:-1])[0, 0]) + 2
        raise DriverError(f"ARKit file, row {row}: expected timecodes in order, this one goes back")
    return frames, rate


def _resample(frame_numbers: Tensor, values: Tensor, max_frames: int) -> tuple[Tensor, Tensor]:
    """Interpolate onto whole frames; a frame is valid where a row lies within three quarters of a frame of it."""
    count = min(round(float(frame_numbers[-1])) + 1, max_frames)
    grid = torch.arange(count, dtype=torch.float64)
    after = torch.searchsorted(frame_numbers, grid).clamp(max=len(frame_numbers) - 1)
    before = (after - 1).clamp(min=0)
    span = frame_numbers[after] - frame_numbers[before]
    share = torch.where(span > 0, (grid - frame_numbers[before]) / span.clamp(min=1e-9), 1.0).clamp(0, 1)
    nearest = torch.minimum((grid - frame_numbers[before]).abs(), (grid - frame_numbers[after]).abs())
    mixed = torch.lerp(values[before], values[after], share[:, None].float())
    return mixed, nearest <= 0.75
