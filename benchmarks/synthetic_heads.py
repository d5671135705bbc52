"""How fast synthetic heads are drawn: processor seconds of one process per image, by part of the work.

`python -m benchmarks.synthetic_heads --assets DIR` prints tables and writes `benchmarks/results/synthetic_heads.json`.
Processor time of one thread is counted, so that other load on the machine matters little. Two expressions with two
views each, as by default; `plain` is what the generator's shards hold, `product` what `galatea synthesize heads` makes:
glasses, beards, occluders, backgrounds, camera effects, all labels, encoded.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from training.heads.people import sample_head
from training.heads.rows import HeadRows
from training.heads.settings import HeadsConfig
from training.heads.synthesize import one_thread

NUM_PEOPLE = 10
SIZES = (64, 128, 256)
GOAL = {"size": 128, "images_per_second_on_two_cores": 25}
RESULT = Path(__file__).parent / "results" / "synthetic_heads.json"


def main() -> None:
    """Measure both kinds at three sizes, print a table, write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", required=True)
    parser.add_argument("--people", type=int, default=NUM_PEOPLE)
    options = parser.parse_args()
    with one_thread():
        figures = [figure for size in SIZES for figure in measure(options.assets, size, options.people)]
    result = {
        "command": f"python -m benchmarks.synthetic_heads --assets DIR --people {options.people}",
        "machine": {"processor": processor(), "threads": 1},
        "goal": GOAL,
        "figures": figures,
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print("| image side | kind | CPU ms per image | images/s on two cores |\n|---|---|---|---|")
    for row in figures:
        print(f"| {row['size']} | {row['kind']} | {row['cpu_ms']} | {row['images_per_second_on_two_cores']} |")


def measure(assets: str, size: int, num_people: int) -> list[dict[str, object]]:
    """Return the figures of one image side."""
    config = HeadsConfig(assets=assets, size=size)
    rows = HeadRows.load(config, torch.device("cpu"))
    renderer = rows.renderer

    def plain(person: int) -> None:
        for expression in range(config.num_expressions):
            sample = sample_head(person, expression, config.num_views, renderer.model, renderer.assets)
            renderer.render(replace(sample, seed=person), size)

    def product(person: int) -> None:
        rows.of(f"p{person}", person, config.images_per_person)

    product(999)
    return [
        _figure(size, kind, cpu_seconds(work, num_people) / config.images_per_person)
        for kind, work in (("plain", plain), ("product", product))
    ]


def cpu_seconds(work: Callable[[int], None], num_people: int) -> float:
    """Return the processor time of one person."""
    start = time.process_time()
    for person in range(num_people):
        work(person)
    return (time.process_time() - start) / num_people


def processor() -> str:
    """Return the name of the processor."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _figure(size: int, kind: str, seconds: float) -> dict[str, object]:
    return {
        "size": size,
        "kind": kind,
        "cpu_ms": round(1000 * seconds, 1),
        "images_per_second_on_two_cores": round(2 / seconds, 1),
    }


if __name__ == "__main__":
    main()
