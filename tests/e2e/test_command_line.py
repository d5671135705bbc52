"""The product as a person uses it: one command on a folder of real and broken photos, with every model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from skimage import data

from pipeline.manifest import read_rows
from pipeline.storage import Store

SMALL = (
    *("executor=local", "tracking=off", "drivers=[blink]", "edit.edits=[older]"),
    *("invert.num_candidates=1", "invert.projection_steps=2", "invert.projection_resolution=32"),
    *("invert.tuning_steps=2", "invert.tuning_resolution=32"),
    *("animate.fps=3", "animate.size=128", "animate.resolution=32", "animate.edited_with=[]", "evaluate.clip_frames=2"),
)


def _galatea(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_one_command_brings_a_photo_to_life_and_the_next_finds_it_done(tmp_path: Path, weights: Path) -> None:
    photos, run = tmp_path / "photos", str(tmp_path / "run")
    photos.mkdir()
    Image.fromarray(data.astronaut()).save(photos / "astronaut.jpg")
    Image.fromarray(data.coffee()).save(photos / "coffee.png")
    (photos / "half.jpg").write_bytes((photos / "astronaut.jpg").read_bytes()[:9000])
    (photos / "text.png").write_text("not a picture")

    answer = _galatea("run", str(photos), "--out", run, *SMALL)
    assert answer.returncode == 0, answer.stderr
    assert f"{run}/report.html" in answer.stdout

    store = Store(run)
    ends = {Path(row["uri"]).name: row["status"] for row in read_rows(store, "ingest", ["uri", "status"])}
    assert ends["astronaut.jpg"] == "done"
    assert ends["text.png"] == "rejected"
    portraits = {Path(row["uri"]).name: row["status"] for row in read_rows(store, "align", ["uri", "status"])}
    assert portraits["astronaut.jpg"] == "done"
    assert portraits["coffee.png"] == "no_face"
    assert portraits["half.jpg"] == "failed"
    clips = read_rows(store, "animate", ["clip_id", "clip", "preview", "status"])
    assert {row["clip_id"].split(".", 1)[1] for row in clips} == {"none.blink"}
    assert all(store.read(row["clip"])[4:8] == b"ftyp" for row in clips)
    metrics = json.loads(store.read("metrics.json"))
    assert metrics["portraits"] == 1
    assert 0 < metrics["portrait"]["identity_similarity"]["p50"] <= 1
    page = store.read("report.html").decode()
    assert page.count("<article") == 1
    assert page.count('class="motion"') == 1
    assert "text.png" in page

    again = _galatea("run", str(photos), "--out", run, *SMALL)
    assert again.returncode == 0, again.stderr
    assert "Nothing to compute" in again.stdout


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_second_driver_leaves_the_first_one_s_clip(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    Image.fromarray(data.astronaut()).save("eileen.jpg")
    small = [word for word in SMALL if not word.startswith(("executor", "drivers", "edit."))]

    for driver in ("blink", "nod"):
        answer = _galatea("animate", "eileen.jpg", "--driver", driver, "edit=none", *small)
        assert answer.returncode == 0, answer.stderr

    clips = read_rows(Store("galatea-out/eileen"), "animate", ["clip_id"])
    assert {row["clip_id"].split(".", 1)[1] for row in clips} == {"none.blink", "none.nod"}
