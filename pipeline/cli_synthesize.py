"""`galatea synthesize`: labelled synthetic training data."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

app = typer.Typer(no_args_is_help=True, help="Labelled synthetic training data, drawn from nothing but a seed.")
_out = Console()
_err = Console(stderr=True)


@app.command()
def heads(
    count: Annotated[int, typer.Option(help="Images to draw.")],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="URL", help="Folder or bucket prefix; resumed if it exists.")
    ],
    size: Annotated[int | None, typer.Option(help="Image side in pixels.", show_default="256")] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed gives other people.", show_default="0")] = None,
    views: Annotated[int | None, typer.Option(help="Cameras for each expression.", show_default="2")] = None,
    expressions: Annotated[int | None, typer.Option(help="Expressions of each person.", show_default="2")] = None,
    assets: Annotated[str, typer.Option(help="MakeHuman's system assets.", show_default="$GALATEA_HEAD_ASSETS")] = "",
    form: Annotated[str, typer.Option("--format", help="parquet, or webdataset for tar shards too.")] = "parquet",
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Configuration, e.g. executor=local heads.image_format=png."),
    ] = None,
) -> None:
    """Draw synthetic heads with exact labels; running it again resumes."""
    from pipeline.config import compose
    from pipeline.inputs import absolute
    from pipeline.progress import shown_on
    from pipeline.storage import Store
    from pipeline.synthesize import CONFIG_SECTION, HeadsOrder, synthesize_heads
    from training.heads.settings import HeadsConfig

    named = {"size": size, "seed": seed, "num_views": views, "num_expressions": expressions, "assets": assets or None}
    given = [f"{CONFIG_SECTION}.{key}={_quoted(value)}" for key, value in named.items() if value is not None]
    config = compose([*given, *(overrides or ())], own={CONFIG_SECTION: HeadsConfig})
    order = HeadsOrder(count, Store(absolute(out), config.storage.options), config.own[CONFIG_SECTION], config, form)
    with shown_on(_err) as progress:
        outcome = synthesize_heads(order, progress)
    summary, store = outcome.summary, order.out
    drawn = summary.num_records - summary.num_reused
    _out.print(f"{summary.num_done} images of {summary.num_records} people, {drawn} of them drawn now.")
    if summary.num_failed:
        _out.print(f"[yellow]{summary.num_failed} people could not be drawn[/]: {escape(str(dict(summary.errors)))}")
    _out.print(escape(store.locate("synthesize/manifest.parquet")), highlight=False, soft_wrap=True)
    if outcome.shards is not None:
        where = f"{store.locate('webdataset')}: {len(outcome.shards.shards)} shards"
        _out.print(escape(where), highlight=False, soft_wrap=True)


def _quoted(value: object) -> str:
    return f"'{value}'" if isinstance(value, str) else str(value)
