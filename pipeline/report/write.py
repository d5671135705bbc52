"""Writes what a run amounts to into its folder: the report page, and the figures that tools compare."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

from galatea.errors import ConfigError
from pipeline.aggregates import aggregate, nested, quantile_curves, stage_seconds
from pipeline.compaction import read_statistics
from pipeline.config import Config, to_flat
from pipeline.fingerprint import digest
from pipeline.plan import STEPS
from pipeline.report.page import build_page, render
from pipeline.report.source import StoredRun
from pipeline.storage import Store

REPORT_FILE, METRICS_FILE, RESULTS_FILE = "report.html", "metrics.json", "results.json"


def write_results(run: Store, config: Config) -> str:
    """Write `report.html`, `metrics.json` and the tables in `plots/` for a run, finished or not.

    Returns:
        Where the page is.

    Raises:
        ConfigError: the folder holds no run.
        StorageError: it cannot be read or written.
    """
    source = StoredRun(run)
    if not source.table("ingest", ["status"]).num_rows:
        raise ConfigError(f"{run.url} holds no run: expected the folder that `galatea run INPUT --out RUN` wrote.")
    page = build_page(source, run.url, to_flat(config), config.report, datetime.now().astimezone())
    run.write(REPORT_FILE, render(page).encode())
    run.write(METRICS_FILE, json.dumps(nested(aggregate(source)), indent=2, sort_keys=True).encode())
    for kind, rows in quantile_curves(source).items():
        run.write(f"plots/{kind}s.csv", _table(rows))
    run.write("plots/seconds.csv", _table(stage_seconds(source)))
    run.write(RESULTS_FILE, json.dumps({"of": _state(run, config), "report": REPORT_FILE}).encode())
    return run.locate(REPORT_FILE)


def has_current_results(run: Store, config: Config) -> bool:
    """Whether the results in the folder are those of the manifests in it."""
    if not run.exists(RESULTS_FILE) or not run.exists(REPORT_FILE):
        return False
    return bool(json.loads(run.read(RESULTS_FILE)).get("of") == _state(run, config))


def _state(run: Store, config: Config) -> str:
    """Changes whenever a manifest or the configuration changes."""
    statistics = [json.dumps(read_statistics(run, stage), sort_keys=True) for stage in ("ingest", *STEPS)]
    return digest(*statistics, json.dumps(to_flat(config), sort_keys=True, default=str))


def _table(rows: list[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()
