"""Command: train the built-in generator on synthetic heads by reconstruction.

`python -m training.train_generator --data DIR --holdout DIR --assets DIR --out DIR --minutes 60`

Resumable: starting it again with the same --out goes on from the last checkpoint. The clock, not a number of steps,
ends it: the learning rate falls over the last 40% of the minutes.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch.multiprocessing.spawn import spawn

from galatea.eg3d.anchored_config import AnchoredConfig
from training.head_images import HeadImages, PatchSampling
from training.monitor import Monitor
from training.trainer import Trainer
from training.training_config import PRESETS, TrainingConfig

SYNC_STEPS = 10
"""Steps between averagings of the weights where several processes train."""


def train(rank: int, config: TrainingConfig, options: argparse.Namespace) -> None:
    """Train until the time is up; the first process logs to `out/log.csv` and writes sheets to `out/sheet-*.png`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if options.workers > 1:
        meeting = options.out.resolve() / f"meeting-{options.started}"
        torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=options.workers)
    data = HeadImages(options.data)
    fields = tuple((name, stop - start) for name, (start, stop) in data.fields.items())
    trainer = Trainer(replace(config, seed=config.seed + rank), AnchoredConfig(code_fields=fields), data, options.out)
    if rank == 0:
        trainer.start(options.assets, options.start)
    else:
        trainer.know(options.assets)
    if options.workers > 1:
        trainer.agree(source=0)
    monitor = Monitor(trainer, options) if rank == 0 else None
    while trainer.progress < 1:
        terms = trainer.step(PatchSampling())
        if options.workers > 1 and trainer.steps % SYNC_STEPS == 0:
            trainer.agree()
        if trainer.steps % 100 == 0:
            data.refresh()
        if monitor is not None:
            monitor.after(terms)
    if monitor is not None:
        monitor.report()


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and train; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description="Train the built-in generator.")
    parser.add_argument("--data", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--holdout", type=Path, required=True, help="folder of shards with other people")
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman's system assets folder (CC0)")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, log and sheets")
    parser.add_argument(
        "--start", type=Path, help="generator whose weights a new training starts from, with full planes"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="training time, all starts together")
    parser.add_argument("--every", type=float, default=5.0, help="minutes between checkpoints and sheets")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each, weights averaged")
    parser.add_argument("--tracking", default="", help="MLflow store to log to, e.g. sqlite:///mlflow.db")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="cpu", help="settings for two cores, or one GPU")
    options = parser.parse_args(arguments)
    config = replace(PRESETS[options.preset], minutes=options.minutes)
    if options.start is not None:
        config = replace(config, coarse_share=0.0)
    if options.workers > 1 and (config.adversarial_weight or config.device != "cpu"):
        parser.error("--workers: several processes train by reconstruction on the CPU only; use 1 with this preset")
    options.out.mkdir(parents=True, exist_ok=True)
    options.started = int(time.time())
    (options.out / "config.json").write_text(json.dumps(asdict(config)))
    if options.workers > 1:
        spawn(train, (config, options), options.workers)  # type: ignore[no-untyped-call]
    else:
        train(0, config, options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
