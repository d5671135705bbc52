from __future__ import annotations

import io
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galatea.errors import ConfigError
from pipeline.config import compose
from pipeline.manifest import manifest_path, read_table, to_rows, to_table, write_table
from pipeline.report.charts import Metric, histogram
from pipeline.report.facts import failures
from pipeline.report.page import build_page, render
from pipeline.report.pictures import Budget, moving, still
from pipeline.report.source import StoredRun
from pipeline.report.write import has_current_results, write_results
from pipeline.settings import ReportConfig
from pipeline.storage import Store
from tests.pipeline.made_up_run import HOSTILE_NAME, write_run

NOW = datetime(2030, 5, 4, 12, 0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(write_run(tmp_path_factory.mktemp("run"), num_photos=3, num_faces=2))


def _render(run: Store, **limits: float) -> str:
    return render(build_page(StoredRun(run), run.url, {"animate.fps": 12}, ReportConfig(**limits), NOW))  # type: ignore[arg-type]


def test_the_page_shows_every_portrait_and_says_what_failed(run: Store) -> None:
    page = _render(run)
    assert page.count("<article") == 4
    assert "Showing 4 of 4" in page
    assert page.count('class="motion"') == 4 * 6
    assert "family 002.jpg: no face was found" in page
    assert "not allowed" in page  # a licence of the models
    assert "animate.fps" in page


def test_the_page_needs_nothing_from_outside(run: Store) -> None:
    page = _render(run)
    addresses = re.findall(r'(?:src|href|srcset)="([^"]*)"', page)
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page


def test_names_from_the_archive_are_escaped(run: Store) -> None:
    page = _render(run)
    assert HOSTILE_NAME not in page
    assert "&lt;img src=x" in page


def test_every_picture_has_words(run: Store) -> None:
    pictures = re.findall(r"<img [^>]*>", _render(run))
    assert pictures
    assert all(re.search(r'alt="[^"]+"', picture) for picture in pictures)


def test_a_large_run_is_sampled_and_says_so(run: Store) -> None:
    page = _render(run, max_portraits=3)
    assert page.count("<article") == 3
    assert "Showing 3 of 4, evenly sampled" in page


def test_the_budget_holds_and_drops_motion_first(run: Store) -> None:
    small = _render(run, max_megabytes=0.06)
    assert len(small) < len(_render(run))
    assert 'class="motion"' not in small
    assert "<img" in small


def test_failures_are_counted_by_reason_and_some_are_shown_by_name(tmp_path: Path) -> None:
    run = Store(write_run(tmp_path, num_photos=5, num_faces=2))
    table = read_table(run, manifest_path("animate"))
    rows = [{**row, "status": "failed", "error_code": "fit", "error_message": "no fit"} for row in to_rows(table)]
    rows[0]["error_code"] = None
    write_table(run, manifest_path("animate"), [to_table(rows, table.schema)], table.schema)

    first, *others = failures(StoredRun(run))

    assert (first.stage, first.status, first.code, first.count) == ("animate", "failed", "fit", 47)
    assert len(first.examples) == 40
    assert first.examples[1] == (f"{HOSTILE_NAME}, face 1 of 2, smile, edit age", "no fit")
    assert [(group.status, group.code) for group in others if group.stage == "animate"] == [("failed", "")]


def test_a_run_that_has_only_begun_has_a_page(tmp_path: Path) -> None:
    whole = Path(write_run(tmp_path, num_photos=1, num_faces=1))
    for stage in ("invert", "edit", "drive", "animate", "evaluate"):
        (whole / stage / "manifest.parquet").unlink()
    page = _render(Store(str(whole)))
    assert page.count("<article") == 1
    assert "no picture" in page


def test_results_are_current_until_a_manifest_or_the_configuration_changes(tmp_path: Path) -> None:
    run, config = Store(write_run(tmp_path, num_photos=1, num_faces=1)), compose()
    assert not has_current_results(run, config)
    write_results(run, config)
    assert has_current_results(run, config)
    assert not has_current_results(run, compose(["report.max_portraits=1"]))
    run.write("align/statistics.json", b'{"num_rows": 5}')
    assert not has_current_results(run, config)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        write_results(Store(str(tmp_path)), compose())


def test_a_histogram_counts_every_finite_value() -> None:
    values = [0.1, 0.2, 0.2, None, float("nan"), 0.9, float("inf")]
    chart = histogram(Metric("x", "X", ""), values)
    assert chart is not None
    assert chart.count == 4
    assert sum(int(bar.label.rpartition(": ")[2]) for bar in chart.bars) == 4
    assert chart.median == "0.20"
    assert histogram(Metric("x", "X", ""), [None]) is None


@pytest.mark.parametrize("values", [[3.0], [0.0, 0.0], [-5.0, 1e6], [1e-9, 2e-9], [7.0] * 100])
def test_ticks_enclose_the_values(values: list[float]) -> None:
    chart = histogram(Metric("x", "X", ""), values)
    assert chart is not None
    ticks = [float(tick.text) for tick in chart.ticks]
    assert ticks[0] <= min(values)
    assert ticks[-1] >= max(values)
    assert 2 <= len(ticks) <= 8


def test_pictures_that_cannot_be_read_are_left_out() -> None:
    assert still(b"not a picture", "x", Budget(10**6)) is None
    assert still(None, "x", Budget(10**6)) is None
    assert moving(b"", "x", Budget(10**6), 10**6) is None


def test_a_large_animation_is_made_smaller() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (12, 256, 256, 3), dtype=np.uint8)
    frames, stream = [Image.fromarray(frame) for frame in noise], io.BytesIO()
    frames[0].save(stream, "WEBP", save_all=True, append_images=frames[1:], duration=40)
    data = stream.getvalue()
    picture = moving(data, "noise", Budget(10**8), max_bytes=len(data) // 2)
    assert picture is not None
    assert 0 < len(picture.motion) < len(data)
