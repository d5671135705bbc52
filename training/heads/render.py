"""Command: render labelled synthetic heads into shards.

`python -m training.heads.render --assets DIR --out DIR --count N --size 256 --seed S --workers 2`

Starting it again with the same arguments goes on where it stopped.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import time
from pathlib import Path

import torch

from galatea.errors import GalateaError
from galatea.morphable.head import HeadModel
from training.heads.assets import load_assets
from training.heads.renderer import HeadRenderer
from training.heads.shards import ShardPlan, render_shard, write_shard

logger = logging.getLogger(__name__)


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, render what is missing; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description="Render labelled synthetic heads into shards.")
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman's system assets folder (CC0)")
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--count", type=int, default=1024, help="number of images")
    parser.add_argument("--size", type=int, default=256, help="image side in pixels")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other people")
    parser.add_argument("--workers", type=int, default=2, help="processes, one thread each")
    parser.add_argument("--device", default="cpu", help="warp device: cpu or cuda")
    options = parser.parse_args(arguments)
    try:
        plan = ShardPlan(options.out, options.count, options.size, options.seed)
        render_missing(plan, options.assets, options.workers, options.device)
    except GalateaError as error:
        logger.error("%s: %s", error.code, error)
        return 1
    return 0


def render_missing(plan: ShardPlan, assets: Path, num_workers: int, device: str) -> None:
    """Render the missing shards on `num_workers` processes that take one shard after the other."""
    missing = plan.missing()
    HeadModel.load()
    if num_workers <= 1 or len(missing) <= 1:
        _work(plan, assets, device, missing)
        return
    context = multiprocessing.get_context("spawn")
    shares = [missing[start::num_workers] for start in range(num_workers)]
    processes = [context.Process(target=_work, args=(plan, assets, device, share)) for share in shares if share]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    failed = [process.exitcode for process in processes if process.exitcode]
    if failed:
        raise GalateaError(f"render: {len(failed)} of {len(processes)} processes failed with exit codes {failed}")


def _work(plan: ShardPlan, assets_folder: Path, device: str, shards: list[int]) -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    model = HeadModel.load()
    assets = load_assets(assets_folder, model.base_index.numpy())
    renderer = HeadRenderer(model, assets, device)
    for shard in shards:
        if plan.path(shard).exists():
            continue
        start = time.monotonic()
        arrays = render_shard(plan, shard, renderer)
        write_shard(plan.path(shard), arrays, model, assets)
        rate = len(arrays["camera"]) / (time.monotonic() - start)
        logger.info("%s: %d images, %.1f images/s", plan.path(shard).name, len(arrays["camera"]), rate)


if __name__ == "__main__":
    raise SystemExit(main())
