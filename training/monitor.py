"""Log, checkpoints, held-out figures and sheets of a training run."""

from __future__ import annotations

import argparse
import csv
import logging
import time
from dataclasses import asdict
from pathlib import Path

from training.head_images import HeadImages
from training.reconstruction import evaluate, write_sheet
from training.tracking import TrainingTracker
from training.trainer import Trainer

logger = logging.getLogger(__name__)
NUM_IMAGES = 24
"""Held-out pictures that are measured."""


class Monitor:
    """Writes the log, checkpoints, held-out figures and sheets."""

    def __init__(self, trainer: Trainer, options: argparse.Namespace) -> None:
        self.trainer, self.out, self.every = trainer, options.out, options.every
        self.workers = options.workers
        self.holdout = HeadImages(options.holdout, limit=256)
        self.sums: dict[str, float] = {}
        self.rendered = 0
        self.tracker: TrainingTracker | None = None
        if options.tracking:
            self.tracker = TrainingTracker(options.tracking, self.out, asdict(trainer.config))
        self.logged, self.reported = time.monotonic(), trainer.seconds

    def after(self, terms: dict[str, float]) -> None:
        """Take note of a step's losses."""
        trainer = self.trainer
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.rendered += bool(terms)
        if trainer.steps % 60 == 0 and self.rendered:
            images = self.rendered * trainer.config.heads * trainer.config.views * self.workers
            row = {"minutes": trainer.seconds / 60, "steps": trainer.steps, "images": trainer.images * self.workers}
            row |= {"per_second": images / (time.monotonic() - self.logged), "data": len(trainer.data)}
            row |= {name: value / self.rendered for name, value in self.sums.items()}
            _append(self.out / "log.csv", row)
            if self.tracker is not None:
                self.tracker.log("train", row, trainer.steps)
            logger.info(" ".join(f"{k}={v:.4g}" for k, v in row.items()))
            self.sums, self.rendered, self.logged = {}, 0, time.monotonic()
        if trainer.seconds - self.reported > 60 * self.every:
            self.report()

    def report(self) -> None:
        """Write a checkpoint, held-out figures and a sheet."""
        started = time.monotonic()
        trainer = self.trainer
        trainer.save()
        generator = trainer.averaged()
        sheet = write_sheet(generator, self.holdout, self.out / f"sheet-{trainer.steps:06d}.png")
        row = {"minutes": trainer.seconds / 60, "images": trainer.images * self.workers}
        row |= evaluate(generator, self.holdout, NUM_IMAGES)
        _append(self.out / "holdout.csv", row)
        if self.tracker is not None:
            self.tracker.log("holdout", row, trainer.steps)
            self.tracker.picture(sheet)
        logger.info("holdout: %s; %s", " ".join(f"{k}={v:.4g}" for k, v in row.items()), sheet)
        self.reported = trainer.seconds
        self.logged += time.monotonic() - started


def _append(path: Path, row: dict[str, float]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow({name: f"{value:.5g}" for name, value in row.items()})
