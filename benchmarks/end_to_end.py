"""Seconds per portrait and stage, peak memory, and the share of the time that is orchestration rather than model work.

`python -m benchmarks.end_to_end [PHOTOS] [--executor ray] [--driver smile --driver turn] [--set animate=quick]`
takes the demo photos by default. The chain runs twice in a fresh folder: everything first, then again with nothing
left to do. Tracking is off, so that what is measured is Galatea. Peak memory is that of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "end_to_end.json"


def main() -> None:
    """Measure in child processes, print a table, and keep the figures."""
    arguments = _arguments()
    if arguments.child:
        print(json.dumps(_measure(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        photos = arguments.photos or _demo_photos(Path(folder) / "photos")
        runs = [_in_child(photos, Path(folder) / "run", arguments) for _ in ("first", "again")]
    figures = {"machine": _machine(), "executor": arguments.executor, "drivers": arguments.driver, "set": arguments.set}
    figures |= _figures(*runs, workers=(os.cpu_count() or 1) if arguments.executor == "ray" else 1)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(_table(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", nargs="?", default="")
    parser.add_argument("--executor", default="ray", choices=("ray", "local"))
    parser.add_argument("--driver", action="append")
    parser.add_argument("--set", action="append", default=[], help="configuration, as galatea run takes it")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.driver = arguments.driver or ["smile", "turn"]
    return arguments


def _demo_photos(folder: Path) -> str:
    from pipeline.demo import write_photos

    write_photos(folder)
    return str(folder)


def _in_child(photos: str, run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.end_to_end", photos, "--child", str(run)]
    command += ["--executor", arguments.executor, *(word for name in arguments.driver for word in ("--driver", name))]
    command += [word for value in arguments.set for word in ("--set", value)]
    begun = time.perf_counter()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result | {"process_seconds": time.perf_counter() - begun}


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from pipeline.config import compose
    from pipeline.session import Order, carry_out

    drivers = ",".join(arguments.driver)
    words = [f"executor={arguments.executor}", "tracking=off", f"drivers=[{drivers}]", *arguments.set]
    begun = time.perf_counter()
    outcome = carry_out(Order((arguments.photos,), arguments.child, compose(words)), lambda _: None)
    stages = {
        name: {
            "records": summary.num_records,
            "computed": summary.num_records - summary.num_reused,
            "rows_done": summary.num_done,
            "rows_failed": summary.num_failed,
            "wall_seconds": summary.seconds,
            "model_seconds": summary.model_seconds,
        }
        for name, summary in outcome.stages.items()
    }
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    peak = max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 1024
    return {"stages": stages, "seconds": time.perf_counter() - begun, "peak_memory_mib": peak}


def _figures(first: Mapping[str, Any], again: Mapping[str, Any], workers: int) -> dict[str, Any]:
    model = sum(stage["model_seconds"] for stage in first["stages"].values())
    wall = sum(stage["wall_seconds"] for stage in first["stages"].values())
    portraits = max(1, first["stages"]["align"]["rows_done"])
    return {
        "first_run": first,
        "second_run_seconds": again["process_seconds"],
        "second_run_computed": sum(stage["computed"] for stage in again["stages"].values()),
        "portraits": portraits,
        "seconds_per_portrait": first["seconds"] / portraits,
        "workers": workers,
        "model_seconds": model,
        "stage_wall_seconds": wall,
        "share_outside_the_models": 1 - model / (wall * workers),
    }


def _machine() -> str:
    return f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def _table(figures: Mapping[str, Any]) -> str:
    rows = ["| stage | records | wall s | model s | s per portrait |", "|---|---|---|---|---|"]
    for name, stage in figures["first_run"]["stages"].items():
        per_portrait = stage["wall_seconds"] / figures["portraits"]
        cells = (name, stage["computed"], f"{stage['wall_seconds']:.1f}", f"{stage['model_seconds']:.1f}")
        rows.append(f"| {' | '.join(map(str, cells))} | {per_portrait:.2f} |")
    first = figures["first_run"]
    rows += [
        "",
        f"{figures['portraits']} portraits in {first['seconds']:.0f} s, {figures['seconds_per_portrait']:.1f} s each;"
        f" peak memory {first['peak_memory_mib']:.0f} MiB.",
        f"{figures['share_outside_the_models']:.0%} of the workers' time is outside the stages: start-up, loading,"
        " orchestration, idle cores.",
        f"Again: {figures['second_run_seconds']:.1f} s, {figures['second_run_computed']} records computed.",
    ]
    return "\n".join(rows)


if __name__ == "__main__":
    main()
