"""Writes the report of a run into its folder."""

from __future__ import annotations

from datetime import datetime

from galatea.errors import ConfigError
from pipeline.config import Config, to_flat
from pipeline.report.page import build_page, render
from pipeline.report.source import StoredRun
from pipeline.storage import Store

REPORT_FILE = "report.html"


def write_report(run_url: str, config: Config) -> str:
    """Write `report.html` for a run, finished or not.

    Returns:
        Where the page is.

    Raises:
        ConfigError: the folder holds no run.
        StorageError: it cannot be read or written.
    """
    run = Store(run_url, config.storage.options)
    source = StoredRun(run)
    if not source.facts("ingest") and not source.facts("align"):
        raise ConfigError(f"{run_url} holds no run: expected the folder that `galatea run INPUT --out RUN` wrote.")
    page = build_page(source, run_url, to_flat(config), config.report, datetime.now().astimezone())
    run.write(REPORT_FILE, render(page).encode())
    return run.locate(REPORT_FILE)
