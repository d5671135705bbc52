"""`galatea models`: the weights, their licences, and how they get here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from galatea.errors import ConfigError

IMPORTED_FOLDER = "generators"
"""In Galatea's home folder: where imported checkpoints are kept."""

app = typer.Typer(
    no_args_is_help=True, help="The model weights: what there is and under which licence; fetch and import."
)
_out = Console()


@app.command(name="list")
def list_models() -> None:
    """List every model, its licence, its hash, and whether commercial use is allowed."""
    from dataclasses import asdict

    from galatea.weights import parts

    for facts in (*map(asdict, parts()), _head_model(), *_imported()):
        state = "[green]present[/]" if facts["is_installed"] else "[red]missing[/]"
        use = "commercial use allowed" if facts["is_commercial_use_allowed"] else "[yellow]no commercial use[/]"
        name, version, licence = (escape(str(facts[key])) for key in ("name", "version", "licence"))
        _out.print(f"{state}  [bold]{name}[/] {version}  {licence}, {use}", highlight=False, soft_wrap=True)
        detail = f"         {facts['doc']}  sha256 {facts['sha256'][:16]}"
        _out.print(f"[dim]{escape(detail)}[/]", highlight=False, soft_wrap=True)


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
    where = escape(str(files[0].parent))
    _out.print(f"{len(files)} weight files of the {pack} pack are in {where}", highlight=False, soft_wrap=True)


@app.command(name="import")
def import_model(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Only [cyan]eg3d[/]: an official EG3D pickle.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Nothing inside it is executed.")],
) -> None:
    """Import a generator that you have; it becomes a safetensors checkpoint of Galatea's own."""
    from galatea.eg3d.pickle_import import import_official

    if kind != "eg3d":
        raise ConfigError(f"There is no import of '{kind}', only of eg3d.")
    if not file.is_file():
        raise ConfigError(f"There is no file {file}. Expected an official EG3D pickle.")
    facts = import_official(file, _imported_folder())
    use = "commercial use allowed" if facts.is_commercial_use_allowed else "no commercial use"
    path = _imported_folder() / f"{file.stem}.json"
    _out.print(escape(f"Imported {facts.name}: {facts.licence}, {use}; sha256 {facts.sha256[:16]}"), highlight=False)
    _out.print(escape(f"Use it with: generator={path} edit=none"), highlight=False, soft_wrap=True)


def _head_model() -> dict[str, Any]:
    """Facts of the head model, which comes with a package and is baked on first use."""
    from dataclasses import asdict
    from importlib.util import find_spec

    from stages.provenance import head_parts

    return {**asdict(head_parts()[0]), "doc": "head model", "is_installed": find_spec("anny") is not None}


def _imported_folder() -> Path:
    from galatea.weights import home

    return home() / IMPORTED_FOLDER


def _imported() -> Iterator[dict[str, Any]]:
    """Facts of imported checkpoints, as their own files tell them."""
    for file in sorted(_imported_folder().glob("*.json")):
        facts = json.loads(file.read_text(encoding="utf-8"))["provenance"]
        yield {
            **facts,
            "doc": f"imported generator, {file}",
            "is_installed": file.with_suffix(".safetensors").is_file(),
        }
