"""What a person sees while stages run: bars on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from pipeline.run_stage import Progress

_log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class LogLines:
    """A line at the start and end of a stage, and one every few seconds in between."""

    def __init__(self, seconds_between_lines: float = SECONDS_BETWEEN_LINES) -> None:
        self._pause = seconds_between_lines
        self._stage = ""
        self._last_line = 0.0

    def __call__(self, progress: Progress) -> None:
        """Log where a stage is, but not too often."""
        now = time.monotonic()
        counted = progress.reused + progress.done + progress.failed
        is_new, is_over = progress.stage != self._stage, counted >= progress.total
        if not (is_new or is_over or now - self._last_line >= self._pause):
            return
        self._stage, self._last_line = progress.stage, now
        _log.info("%-8s %d of %d%s%s", progress.stage, counted, progress.total, _notes(progress), _estimate(progress))


class TerminalBars:
    """A live bar for each stage, with counts of what failed and an estimate."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, progress: Progress) -> None:
        """Move the stage's bar."""
        if progress.stage not in self._tasks:
            self._tasks[progress.stage] = self._bars.add_task(progress.stage, total=max(progress.total, 1), note="")
        counted = progress.reused + progress.done + progress.failed
        is_empty = progress.total == 0
        note = "nothing to do" if is_empty else _notes(progress).lstrip(", ")
        self._bars.update(
            self._tasks[progress.stage],
            total=max(progress.total, 1),
            completed=1 if is_empty else counted,
            note=f"[red]{note}[/]" if progress.failed else f"[dim]{note}[/]",
        )


@contextmanager
def shown_on(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Something to call with every `Progress`: live bars where the console is a terminal, log lines elsewhere."""
    if not console.is_terminal:
        yield LogLines()
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
    with Bars(*columns, console=console, expand=True) as bars:
        yield TerminalBars(bars)


def duration(seconds: float) -> str:
    """Seconds for people: `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _notes(progress: Progress) -> str:
    reused = f", {progress.reused} done before" if progress.reused else ""
    return reused + (f", {progress.failed} failed" if progress.failed else "")


def _estimate(progress: Progress) -> str:
    left = progress.eta_seconds
    return f", about {duration(left)} left" if left else ""
