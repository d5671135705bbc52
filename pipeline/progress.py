"""What a person sees while stages run: bars on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

_log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0
DONE = "done"


class Observer(Protocol):
    """Is told how the records of a stage fare; the engine calls it, from one thread."""

    def stage_started(self, stage: str, total: int, already_done: int) -> None:
        """A stage begins: of `total` records, `already_done` need no work."""

    def records_finished(self, stage: str, status: str, count: int) -> None:
        """Records ended with a status (`done`, `failed`, `no_face`, ...)."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """The stage's manifest is published."""


class NoObserver:
    """Says nothing."""

    def stage_started(self, stage: str, total: int, already_done: int) -> None:
        """Nothing."""

    def records_finished(self, stage: str, status: str, count: int) -> None:
        """Nothing."""

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Nothing."""


class LogObserver:
    """A line at the start and end of a stage, and one every few seconds in between."""

    def __init__(self, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._pause = seconds_between_lines
        self._totals: dict[str, int] = {}
        self._counts: dict[str, Counter[str]] = {}
        self._started: dict[str, float] = {}
        self._last_line = 0.0

    def stage_started(self, stage: str, total: int, already_done: int) -> None:
        """Log how much there is to do."""
        self._totals[stage] = total - already_done
        self._counts[stage] = Counter()
        self._started[stage] = self._last_line = time.monotonic()
        _log.info("%s: %d records, %d done before", stage, total, already_done)

    def records_finished(self, stage: str, status: str, count: int) -> None:
        """Log the counts and the estimate, but not too often."""
        self._counts[stage][status] += count
        now = time.monotonic()
        if now - self._last_line >= self._pause:
            self._last_line = now
            finished, total = self._counts[stage].total(), self._totals[stage]
            left = (total - finished) * (now - self._started[stage]) / max(finished, 1)
            _log.info("%s: %d of %d, %s, about %s left", stage, finished, total, self._text(stage), duration(left))

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Log the result."""
        if self._totals.get(stage):
            _log.info("%s: finished in %s, %s", stage, duration(seconds), self._text(stage))

    def _text(self, stage: str) -> str:
        return ", ".join(f"{count} {status}" for status, count in sorted(self._counts[stage].items())) or "nothing done"


class TerminalObserver:
    """A live bar for each stage, with counts of what failed and an estimate."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}
        self._others: dict[str, Counter[str]] = {}

    def stage_started(self, stage: str, total: int, already_done: int) -> None:
        """Add the stage's bar."""
        self._others[stage] = Counter()
        note = f"[dim]{already_done} done before[/]" if already_done else ""
        self._tasks[stage] = self._progress.add_task(stage, total=total, completed=already_done, note=note)

    def records_finished(self, stage: str, status: str, count: int) -> None:
        """Advance the bar."""
        if status != DONE:
            self._others[stage][status] += count
        note = ", ".join(f"[red]{number} {name}[/]" for name, number in sorted(self._others[stage].items()))
        self._progress.update(self._tasks[stage], advance=count, **({"note": note} if note else {}))

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Stop the bar's clock."""
        self._progress.stop_task(self._tasks[stage])


@contextmanager
def shown_on(console: Console) -> Iterator[Observer]:
    """An observer that fits the console: live bars where it is a terminal, log lines elsewhere."""
    if not console.is_terminal:
        yield LogObserver()
        return
    columns = (
        SpinnerColumn(finished_text="[green]✓[/]"),
        TextColumn("[bold]{task.description:<9}[/]"),
        BarColumn(bar_width=None, complete_style="cyan", finished_style="green"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, expand=True) as progress:
        yield TerminalObserver(progress)


def duration(seconds: float) -> str:
    """Seconds for people: `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
