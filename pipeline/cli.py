"""The command line. Every import that costs time is inside the command that needs it."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from galatea.errors import ConfigError, GalateaError
from pipeline.cli_mesh import mesh
from pipeline.cli_models import app as models_app
from pipeline.cli_synthesize import app as synthesize_app
from pipeline.words import check_path, is_configuration, photo_name

if TYPE_CHECKING:
    from pipeline.session import Outcome

EXIT_RUN_ERROR, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

_out = Console()
_err = Console(stderr=True)


class Commands(TyperGroup):
    """Turns the errors that Galatea raises on purpose into messages and exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; errors end the process with a message and an exit code."""
        try:
            return super().invoke(ctx)
        except GalateaError as error:
            if error.code == "interrupted":
                _interrupted()
                raise typer.Exit(EXIT_INTERRUPTED) from error
            _err.print(f"[bold red]Error[/] ({error.code}): {escape(str(error))}", highlight=False, soft_wrap=True)
            raise typer.Exit(EXIT_USAGE if isinstance(error, ConfigError) else EXIT_RUN_ERROR) from error
        except KeyboardInterrupt as error:
            _interrupted()
            raise typer.Exit(EXIT_INTERRUPTED) from error


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Brings portraits to life: inverts the faces of photos into a 3D GAN, edits, animates and measures them.",
)
app.add_typer(models_app, name="models")
app.add_typer(synthesize_app, name="synthesize")

Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[GROUP=PRESET|KEY=VALUE]...", help="Configuration, e.g. [cyan]executor=local animate.fps=12[/]."
    ),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE", help="YAML values in the shape that [cyan]galatea config[/] prints."
    ),
]
Drivers = Annotated[
    list[str] | None,
    typer.Option(
        "--driver",
        "-d",
        metavar="NAME|PATH",
        help="What moves the portraits: a preset, a camera path, a video, a photo or an ARKit CSV. Repeat for several.",
    ),
]
RunFolder = Annotated[
    str, typer.Option("--out", "-o", metavar="RUN", help="The run folder (any fsspec URL); resumed if it exists.")
]


@app.callback()
def _set_up(
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also say what goes on inside.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Only warnings and errors.")] = False,
) -> None:
    level = logging.DEBUG if verbose else logging.WARNING if quiet else logging.INFO
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
    if _err.is_terminal:
        handler = RichHandler(console=_err, show_path=False, show_time=False, markup=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    for name in ("galatea", "stages", "pipeline", "training"):
        logging.getLogger(name).setLevel(level)


@app.command()
def run(
    source: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="Folder, glob, photo or list (Parquet, CSV); local or any fsspec URL."),
    ],
    out: RunFolder,
    overrides: Overrides = None,
    driver: Drivers = None,
    config: ConfigFile = None,
) -> None:
    """Run all stages on an archive of photos, then write the report; running it again resumes."""
    _carry_out([source], out, overrides, driver, config)


@app.command()
def animate(
    photos: Annotated[
        list[str],
        typer.Argument(
            metavar="PHOTO... [KEY=VALUE]...", help="Photos; words with = that are no file or URL are configuration."
        ),
    ],
    driver: Drivers = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", "-o", metavar="RUN", help="The run folder; if not given, galatea-out/ and the first photo's name."
        ),
    ] = None,
    config: ConfigFile = None,
) -> None:
    """Animate a few photos on this machine, in this process: the quick path. Clips of earlier drivers stay."""
    overrides = [word for word in photos if is_configuration(word)]
    chosen = [word for word in photos if word not in overrides]
    if not chosen:
        raise ConfigError("No photo was given: expected `galatea animate PHOTO... --driver smile`.")
    folder = f"galatea-out/{photo_name(chosen[0])}" if out is None else out
    overrides = ["executor=local", *overrides]
    _carry_out(chosen, folder, overrides, _with_earlier_drivers(driver, folder, overrides, config), config)


@app.command()
def stage(
    name: Annotated[str, typer.Argument(metavar="NAME", help="align, invert, edit, drive, animate or evaluate.")],
    out: RunFolder,
    overrides: Overrides = None,
    driver: Drivers = None,
    config: ConfigFile = None,
) -> None:
    """Run one stage of a run folder on what the stages before it left there."""
    from pipeline.stage_catalogue import STAGES
    from pipeline.typed_values import nearest_key

    if name not in STAGES:
        nearest = nearest_key(name, STAGES)
        hint = f" Did you mean '{nearest}'?" if nearest else ""
        raise ConfigError(f"There is no stage '{name}', only {', '.join(STAGES)}.{hint}")
    _carry_out([], out, overrides, driver, config, stages=(name,))


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Folder, glob, photo or list (Parquet, CSV).")],
    out: RunFolder,
    overrides: Overrides = None,
    config: ConfigFile = None,
) -> None:
    """Only list the photos and check which of them can be read."""
    _carry_out([source], out, overrides, None, config, stages=("ingest",))


@app.command()
def report(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, finished or not.")],
    overrides: Overrides = None,
    config: ConfigFile = None,
) -> None:
    """Write the report page of a run folder anew."""
    from pipeline.config import compose
    from pipeline.report.write import write_results
    from pipeline.session import CONFIG_FILE
    from pipeline.storage import Store

    composed = compose(overrides or (), config)
    check_path("RUN", run_folder)
    run = Store(run_folder, composed.storage.options)
    if run.exists(CONFIG_FILE):
        composed = compose(overrides or (), config, recorded=run.read(CONFIG_FILE).decode())
    _out.print(escape(write_results(run, composed)), highlight=False, soft_wrap=True)


@app.command()
def compare(
    run_folder: Annotated[str, typer.Argument(metavar="RUN", help="The run to judge.")],
    baseline: Annotated[str, typer.Argument(metavar="BASELINE", help="A run of the same photos and drivers.")],
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            "--tolerance", "-t", metavar="FIGURE=VALUE", help="How much worse the mean of a figure may be. Repeatable."
        ),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Also write it to this file.")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Compare a run with a baseline, record by record; exit status 1 where it has regressed (for nightly jobs)."""
    from pipeline.cli_compare import show, write_json
    from pipeline.compare import compare as compare_runs
    from pipeline.compare import read_tolerances
    from pipeline.config import compose
    from pipeline.report.source import StoredRun
    from pipeline.storage import Store

    options = compose(overrides or ()).storage.options
    judged, against = (StoredRun(Store(url, options)) for url in (run_folder, baseline))
    comparison = compare_runs(judged, against, read_tolerances(tolerance or ()))
    show(comparison, _out)
    if json_file is not None:
        write_json(comparison, json_file)
    if comparison.has_regressed:
        raise typer.Exit(EXIT_RUN_ERROR)


app.command()(mesh)


@app.command(name="config")
def show_config(
    overrides: Overrides = None,
    config: ConfigFile = None,
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
) -> None:
    """Print the whole configuration with presets and overrides applied."""
    from pipeline.config import compose, presets, to_yaml
    from pipeline.storage_errors import explained

    text = to_yaml(compose(overrides or (), config))
    if out is not None:
        with explained("write", out):
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(text, encoding="utf-8")
        return
    choices = "\n".join(f"#   {group}={'|'.join(names)}" for group, names in presets().items())
    sys.stdout.write(f"# Presets:\n{choices}\n{text}")


@app.command()
def doctor() -> None:
    """Say what is installed, which devices and weights there are, and what to do."""
    from pipeline.doctor import examine, show

    if not show(examine(), _out):
        raise typer.Exit(EXIT_RUN_ERROR)


def _carry_out(
    inputs: list[str],
    out: str,
    overrides: list[str] | None,
    drivers: list[str] | None,
    config: Path | None,
    stages: tuple[str, ...] | None = None,
) -> None:
    from dataclasses import replace

    from pipeline.config import compose
    from pipeline.progress import shown_on
    from pipeline.session import Order, carry_out

    check_path("--out", out)
    for source in inputs:
        if not source.strip():
            check_path("INPUT", source)
    composed = compose(overrides or (), config)
    if drivers:
        composed = replace(composed, drivers=tuple(dict.fromkeys(drivers)))
    order = Order(tuple(inputs), out, composed) if stages is None else Order(tuple(inputs), out, composed, stages)
    with shown_on(_err) as progress:
        outcome = carry_out(order, progress)
    _show(outcome)


def _with_earlier_drivers(drivers: list[str] | None, out: str, overrides: list[str], config: Path | None) -> list[str]:
    """Return the drivers that a run folder was made with, unless it is to be pruned, and those that are asked for."""
    from pipeline.config import compose
    from pipeline.session import CONFIG_FILE
    from pipeline.storage import Store

    check_path("--out", out)
    composed = compose(overrides, config)
    wanted = drivers or list(composed.drivers)
    run = Store(out, composed.storage.options)
    if composed.storage.prune or not run.exists(CONFIG_FILE):
        return wanted
    return [*compose(recorded=run.read(CONFIG_FILE).decode()).drivers, *wanted]


def _show(outcome: Outcome) -> None:
    from pipeline.config import without_secret
    from pipeline.progress import duration

    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in ("stage", "records", "computed", "done", "not done", "time"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for name, summary in outcome.stages.items():
        failed = f"[yellow]{summary.num_failed}[/]" if summary.num_failed else "0"
        computed = summary.num_records - summary.num_reused
        counts = (str(summary.num_records), str(computed), str(summary.num_done), failed)
        table.add_row(name, *counts, duration(summary.seconds))
    _out.print(table)
    if not outcome.num_computed:
        _out.print("Nothing to compute: everything was there already.")
    if outcome.tracked_at:
        place = escape(without_secret(outcome.tracked_at))
        _out.print(f"Recorded in MLflow at {place}", highlight=False, soft_wrap=True)
    if outcome.report:
        _out.print(f"[bold]Report:[/] {escape(outcome.report)}", highlight=False, soft_wrap=True)


def _interrupted() -> None:
    from pipeline.config import without_secret

    again = shlex.join(["galatea", *map(without_secret, sys.argv[1:])])
    text = f"\n[yellow]Interrupted.[/] What is finished is kept. To go on, say the same again:\n  {escape(again)}"
    _err.print(text, highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the `galatea` command."""
    app(prog_name="galatea")


if __name__ == "__main__":
    main()
