"""`galatea models`: the weights, their licences, and how they get here."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.table import Table

app = typer.Typer(
    no_args_is_help=True, help="The model weights: what there is and under which licence; fetch and import."
)
_out = Console()


@app.command(name="list")
def list_models() -> None:
    """List every model, its licence, its hash, and whether commercial use is allowed."""
    from galatea.weights import parts

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("model", "what it does", "version", "licence", "commercial use", "sha256", "state"):
        table.add_column(heading, overflow="fold")
    for part in parts():
        state = "[green]present[/]" if part.is_installed else "[red]missing[/]"
        allowed = "yes" if part.is_commercial_use_allowed else "[yellow]no[/]"
        table.add_row(part.name, part.doc, part.version, part.licence, allowed, part.sha256[:12], state)
    _out.print(table)


@app.command()
def fetch(pack: Annotated[str, typer.Argument(metavar="PACK", help="Only [cyan]open[/] is fetched.")] = "open") -> None:
    """Fetch the weights of a pack into the cache; what is there already is left alone."""
    from galatea.weights import fetch as fetch_weights

    if not _out.is_terminal:
        files = fetch_weights(pack)
    else:
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        with Progress(*columns, console=_out, transient=True) as progress:
            tasks = {}

            def show(name: str, done: int, total: int) -> None:
                if name not in tasks:
                    tasks[name] = progress.add_task(name)
                progress.update(tasks[name], completed=done, total=total or None)

            files = fetch_weights(pack, progress=show)
    _out.print(f"{len(files)} weight files of the {pack} pack are in {files[0].parent}", highlight=False)
