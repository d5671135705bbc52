"""MLflow record of a training run: settings, losses, held-out figures and sheets; resumed runs go on in theirs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

EXPERIMENT = "generator training"


class TrainingTracker:
    """One run of an MLflow store.

    Args:
        uri: of the store (`sqlite:///mlflow.db`, `http://...`).
        out: folder of the training run; keeps the record's id.
        settings: logged once.
    """

    def __init__(self, uri: str, out: Path, settings: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient  # Takes seconds to import: only where a store is named.

        self.client = MlflowClient(tracking_uri=uri)
        known = out / "mlflow-run"
        if known.exists():
            self.run_id = known.read_text()
            return
        experiment = self.client.get_experiment_by_name(EXPERIMENT)
        # Without a server, pictures would go to the current directory.
        place = None if uri.startswith("http") else (out / "mlartifacts").resolve().as_uri()
        number = experiment.experiment_id if experiment else self.client.create_experiment(EXPERIMENT, place)
        self.run_id = self.client.create_run(number, run_name=out.name).info.run_id
        for name, value in settings.items():
            self.client.log_param(self.run_id, name, value)
        known.write_text(self.run_id)

    def log(self, prefix: str, figures: Mapping[str, float], step: int) -> None:
        """Log figures of a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(f"{prefix}/{name}", float(value), now, step) for name, value in figures.items()]
        self.client.log_batch(self.run_id, metrics)

    def picture(self, path: Path) -> None:
        """Keep a sheet."""
        self.client.log_artifact(self.run_id, str(path), "sheets")
