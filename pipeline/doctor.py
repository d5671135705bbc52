"""`galatea doctor`: what is installed, which devices and weights there are, and what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from galatea.errors import GalateaError

_PACKAGES = ("torch", "ray", "mlflow", "dvc", "pyarrow", "fsspec", "s3fs", "av", "kornia", "anny", "insightface")
_LEAST_FREE_GIB = 5.0
_GIB = 1 << 30


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    NOTE = "note"
    """Works without it."""
    BAD = "bad"


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    name: str
    state: State
    found: str
    advice: str = ""


def examine() -> list[Finding]:
    """Look at everything that a run needs; never raises for what it finds."""
    checks: tuple[Callable[[], list[Finding]], ...] = (_python, _packages, _devices, _weights, _folders, _video, _ray)
    return [finding for check in checks for finding in check()]


def show(findings: list[Finding], console: Console) -> bool:
    """Print the findings; True where a run can start."""
    marks = {State.OK: "[green]ok[/]", State.NOTE: "[yellow]note[/]", State.BAD: "[red]no[/]"}
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        advice = f"\n[dim]{escape(finding.advice)}[/]" if finding.advice else ""
        table.add_row(marks[finding.state], finding.name, f"{escape(finding.found)}{advice}")
    console.print(table)
    is_fit = all(finding.state is not State.BAD for finding in findings)
    console.print("[green]Ready.[/] Try: galatea animate photo.jpg --driver smile" if is_fit else "[red]Not ready.[/]")
    return is_fit


def _python() -> list[Finding]:
    is_good = sys.version_info >= (3, 11)
    advice = "" if is_good else "Install Python 3.11."
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return [Finding("Python", State.OK if is_good else State.BAD, found, advice)]


def _packages() -> list[Finding]:
    present, missing = [], []
    for name in _PACKAGES:
        try:
            present.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    findings = [Finding("packages", State.OK, ", ".join(present))]
    if missing:
        findings.append(Finding("packages", State.BAD, f"missing: {', '.join(missing)}", "Run `make setup`."))
    return findings


def _devices() -> list[Finding]:
    import torch

    if not torch.cuda.is_available():
        advice = "Everything runs on the CPU. For a GPU, install a CUDA build of torch: docs/running.md, Set-up."
        return [Finding("GPU", State.NOTE, f"none that torch {torch.__version__} sees", advice)]
    return [
        Finding("GPU", State.OK, f"cuda:{index} {facts.name}, {facts.total_memory / _GIB:.0f} GiB")
        for index in range(torch.cuda.device_count())
        for facts in (torch.cuda.get_device_properties(index),)
    ]


def _weights() -> list[Finding]:
    from galatea.weights import parts

    findings = []
    for part in parts():
        use = "commercial use allowed" if part.is_commercial_use_allowed else "no commercial use"
        presence = "" if part.is_installed else "missing or damaged; "
        found = f"{presence}{part.licence}, {use}; sha256 {part.sha256[:12]}"
        findings.append(Finding(part.name, State.OK if part.is_installed else State.BAD, found))
    if any(finding.state is State.BAD for finding in findings):
        findings.append(Finding("weights", State.BAD, "not complete", "Run `galatea models fetch open`."))
    return findings


def _folders() -> list[Finding]:
    from galatea.weights import home

    findings = []
    for name, folder in (("cache", home()), ("work folder", Path.cwd())):
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        free = shutil.disk_usage(nearest).free / _GIB
        if not os.access(nearest, os.W_OK):
            findings.append(
                Finding(name, State.BAD, f"{folder} cannot be written", "Set GALATEA_HOME, or mend the rights.")
            )
        elif free < _LEAST_FREE_GIB:
            findings.append(
                Finding(name, State.NOTE, f"{folder}, {free:.1f} GiB free", "That is little: clips need space.")
            )
        else:
            findings.append(Finding(name, State.OK, f"{folder}, {free:.0f} GiB free"))
    return findings


def _video() -> list[Finding]:
    import numpy as np

    from galatea.animation.video import encode_mp4, read_video

    try:
        frames = np.full((4, 32, 32, 3), 128, dtype=np.uint8)
        count = len(read_video(encode_mp4(frames, fps=10)).frames)
    except GalateaError as error:
        return [Finding("video", State.BAD, str(error), "Reinstall PyAV: `make setup`.")]
    state = State.OK if count == len(frames) else State.BAD
    return [Finding("video", state, f"H.264 MP4 written and read back through PyAV {version('av')}")]


def _ray() -> list[Finding]:
    address = os.environ.get("RAY_ADDRESS", "")
    if address:
        return [Finding("Ray", State.OK, f"{version('ray')}, RAY_ADDRESS={address}")]
    shared = Path("/dev/shm")  # noqa: S108 - Ray's object store lives there on Linux
    if shared.exists() and shutil.disk_usage(shared).total < _GIB // 2:
        advice = "Ray will be slow: start the container with a larger --shm-size, or use executor=local."
        return [Finding("Ray", State.NOTE, f"{version('ray')}; /dev/shm is smaller than 512 MiB", advice)]
    return [Finding("Ray", State.OK, f"{version('ray')}, starts on this machine; executor.address=... joins a cluster")]
