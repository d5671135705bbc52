"""Memory and time that the driver of a large run takes to plan and to write the report, for each portrait and clip.

`python -m benchmarks.driver_memory [PHOTOS]` writes the manifests of a made-up run (one face a photo, four edits, two
drivers; no pictures), measures each step in a process of its own, and keeps the figures in
`benchmarks/results/driver_memory.json`.
`python -m benchmarks.driver_memory --measure STEP RUN` prints one figure as JSON.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.eg3d_memory import peak_mib
from pipeline.config import compose
from pipeline.fingerprint import digest, row_fingerprint
from pipeline.ingest import COLUMNS
from pipeline.manifest import build_schema, manifest_path, read_table, to_table, write_table
from pipeline.plan import plan_stage
from pipeline.report.write import write_results
from pipeline.stage_catalogue import build_stage, config_classes
from pipeline.storage import Store
from stages.base import Kind

RESULTS = Path(__file__).parent / "results" / "driver_memory.json"
EDITS, DRIVERS = ("none", "older", "smile", "fuller_face"), ("smile", "turn")
_VALUES: Mapping[Kind, Any] = {Kind.FLOAT: 1.25, Kind.INT: 3, Kind.BOOL: True, Kind.STRING: "text", Kind.FILE: "file"}
_BOOKKEEPING = {"status": "done", "error_code": "", "error_message": "", "run_seconds": 1.5, "code_version": "0.1"}
_ROWS_AT_ONCE = 4096


def main() -> None:
    """Measure every step in a child process, print the figures and keep them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="?", type=int, default=20_000)
    parser.add_argument("--measure", nargs=2, metavar=("STEP", "RUN"), help="one figure")
    arguments = parser.parse_args()
    if arguments.measure:
        step, folder = arguments.measure
        print(json.dumps(measure(STEPS[step], Store(folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        write_manifests(Store(folder), arguments.photos)
        rows = {step: measure_in_child(step, folder) for step in STEPS}
    kept = {"machine": platform.processor() or platform.machine(), "photos": arguments.photos, "results": rows}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    for step, row in rows.items():
        print(f"{step:8} {row['bytes_each']:6.0f} bytes and {row['microseconds_each']:4.0f} microseconds each")


def measure_in_child(step: str, folder: str) -> dict[str, float]:
    """Return the figures of a step from a fresh process."""
    command = [sys.executable, "-m", "benchmarks.driver_memory", "--measure", step, folder]
    root = Path(__file__).parents[1]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout
    found: dict[str, float] = json.loads(printed)
    return found


def measure(step: Callable[[Store], int], run: Store) -> dict[str, float]:
    """Do a step, and return what each record took; first on a run of a few photos, so that imports do not count."""
    with tempfile.TemporaryDirectory() as small:
        write_manifests(Store(small), 10)
        step(Store(small))
    before, start = peak_mib(), time.process_time()
    num_records = step(run)
    seconds = time.process_time() - start
    return {
        "records": num_records,
        "bytes_each": (peak_mib() - before) * 2**20 / num_records,
        "microseconds_each": seconds * 1e6 / num_records,
    }


def _plan(run: Store) -> int:
    """Ask for the evaluation of every portrait and clip."""
    requests = plan_stage(run, build_stage("evaluate", config_classes()["evaluate"]()))
    return len([(item.source_id, row_fingerprint("stage", item.fingerprint)) for item in requests.items])


def _report(run: Store) -> int:
    """Write the page, the figures and the tables."""
    write_results(run, compose(["report.max_portraits=0"]))
    return read_table(run, manifest_path("evaluate"), ["status"]).num_rows


STEPS: Mapping[str, Callable[[Store], int]] = {"plan": _plan, "report": _report}


def write_manifests(run: Store, num_photos: int) -> None:
    """Write the manifests of a run in which everything went well."""
    photos = [digest(str(number)) for number in range(num_photos)]
    portraits = [f"{photo}_0" for photo in photos]
    edits = [f"{portrait}.{edit}" for portrait in portraits for edit in EDITS]
    clips = [f"{edit}.{driver}" for edit in edits for driver in DRIVERS]
    _write(run, "ingest", [(photo, f"s3://archive/2004/photos/{photo}.jpg") for photo in photos])
    _write(run, "align", list(zip(portraits, photos, strict=True)))
    _write(run, "invert", [(portrait, portrait) for portrait in portraits])
    _write(run, "edit", [(edit, edit.partition(".")[0]) for edit in edits])
    _write(run, "drive", [(driver, driver) for driver in DRIVERS])
    _write(run, "animate", [(clip, clip) for clip in clips])
    _write(run, "evaluate", [(subject, subject) for subject in [*clips, *portraits]])


def _write(run: Store, stage: str, rows: Sequence[tuple[str, str]]) -> None:
    id_column, columns = "photo_id", COLUMNS
    if stage != "ingest":
        built = build_stage(stage, config_classes()[stage]())
        id_column, columns = built.id_column, built.produces
    schema = build_schema(stage, id_column, columns)
    usual = {column.name: _VALUES.get(column.kind) for column in columns} | _BOOKKEEPING

    def tables() -> Iterator[pa.Table]:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            ids = rows[start : start + _ROWS_AT_ONCE]
            yield to_table([_row(usual, id_column, *names) for names in ids], schema)

    write_table(run, manifest_path(stage), tables(), schema)


def _row(usual: Mapping[str, Any], id_column: str, row_id: str, source_id: str) -> dict[str, Any]:
    kind = "clip" if "." in row_id else "portrait"
    links = {id_column: row_id, "source_id": source_id, "fingerprint": digest(id_column, row_id)}
    return {**usual, "kind": kind, "verdict": "accepted", **links}


if __name__ == "__main__":
    main()
