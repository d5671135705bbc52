"""The report page: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from pipeline.report import charts, facts
from pipeline.report.cards import Card, RunSource, build_cards
from pipeline.settings import ReportConfig


@dataclass(frozen=True)
class Page:
    """Everything that the template shows."""

    title: str
    written: str
    run_url: str
    totals: list[facts.Total]
    cards: list[Card]
    num_portraits: int
    charts: list[facts.Chart]
    failures: list[facts.FailureGroup]
    stages: list[facts.StageFacts]
    models: list[facts.Model]
    versions: list[str]
    config: Mapping[str, Any]

    @property
    def num_failures(self) -> int:
        """Over all groups."""
        return sum(group.count for group in self.failures)


def build_page(source: RunSource, run_url: str, config: Mapping[str, Any], limits: ReportConfig, now: datetime) -> Page:
    """Gather the page of a run, finished or not.

    Args:
        source: the run's manifests.
        run_url: where the run is, for people.
        config: flattened configuration, without credentials.
        limits: how many portraits and bytes the page may have.
        now: the time that the page names.
    """
    cards, num_portraits = build_cards(source, limits.max_portraits, int(limits.max_megabytes * 1e6))
    return Page(
        title=run_url.rstrip("/").rpartition("/")[2] or "run",
        written=now.strftime("%d %B %Y, %H:%M"),
        run_url=run_url,
        totals=facts.totals(source),
        cards=cards,
        num_portraits=num_portraits,
        charts=facts.charts(source),
        failures=facts.failures(source),
        stages=facts.stages(source),
        models=facts.models(source),
        versions=facts.versions(source),
        config=config,
    )


def render(page: Page) -> str:
    """The page as HTML; whatever came from file names and messages is escaped."""
    loader = PackageLoader("pipeline.report", "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    style, behaviour = (str(loader.get_source(environment, name)[0]) for name in ("style.css", "behaviour.js"))
    template = environment.get_template("report.html")
    return template.render(page=page, style=style, behaviour=behaviour, size=(charts.WIDTH, charts.HEIGHT))
