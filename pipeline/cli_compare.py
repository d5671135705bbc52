"""How `galatea compare` shows a comparison: a table, what was lost, and one line that says whether it is good."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.compare import BETTER, REGRESSED, SAME, WORSE, Comparison, FigureChange
from pipeline.progress import duration
from pipeline.storage_errors import explained

_COLOURS = {REGRESSED: "bold red", WORSE: "yellow", SAME: "dim", BETTER: "green"}
_MAX_LOST = 10
_LOG_WIDTH = 120


def show(comparison: Comparison, out: Console) -> None:
    """Print a comparison for people."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("kind", "figure", "pairs", "before", "after", "change (95%)", "allowed", "verdict"):
        table.add_column(heading, justify="left" if heading in ("kind", "figure", "verdict") else "right")
    for change in comparison.changes:
        table.add_row(*_cells(change))
    # A log has no width; names of figures are not to be cut to 80 columns there.
    wide = out if out.is_terminal else Console(file=out.file, width=_LOG_WIDTH)
    wide.print(table)
    seconds = [f"{stage} {duration(a)} -> {duration(b)}" for stage, (a, b) in comparison.seconds.items()]
    out.print(f"Computing time a record: {', '.join(seconds)}", highlight=False)
    _show_lost(comparison, out)
    num = sum(change.verdict == REGRESSED for change in comparison.changes)
    if comparison.has_regressed:
        out.print(f"[bold red]Regressed:[/] {num} figures, {len(comparison.lost)} lost records", highlight=False)
    else:
        out.print("[green]No regression.[/]")


def write_json(comparison: Comparison, path: Path) -> None:
    """Write a comparison for programs."""
    facts = {"has_regressed": comparison.has_regressed, **asdict(comparison)}
    with explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _cells(change: FigureChange) -> tuple[str, ...]:
    low, high = change.low, change.high
    colour = _COLOURS[change.verdict]
    numbers = (f"{change.before:.4g}", f"{change.after:.4g}", f"{low:+.3g} .. {high:+.3g}", f"{change.tolerance:g}")
    return (change.kind, change.figure, str(change.num_pairs), *numbers, f"[{colour}]{change.verdict}[/]")


def _show_lost(comparison: Comparison, out: Console) -> None:
    """Name lost records, those with a reason first: the others are mostly what would have been made from them."""
    ordered = sorted(comparison.lost, key=lambda lost: lost.reason == "not in the run")
    for lost in ordered[:_MAX_LOST]:
        out.print(f"Lost in {lost.stage}: {escape(lost.record)}: {escape(lost.reason)}", highlight=False)
    if len(ordered) > _MAX_LOST:
        out.print(f"... and {len(ordered) - _MAX_LOST} more lost records", highlight=False)
    if comparison.num_gained:
        out.print(f"{comparison.num_gained} records are new in the run.", highlight=False)
