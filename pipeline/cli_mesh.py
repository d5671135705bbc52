"""`galatea mesh`: the shape of a portrait of a run, or of a person whom a generator draws, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from galatea.errors import ConfigError

if TYPE_CHECKING:
    from galatea.inversion.capsule import Capsule
    from pipeline.storage import Store

_MAX_NAMED = 8
_out = Console()


def mesh(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write: [cyan].glb[/] or [cyan].ply[/].")],
    run: Annotated[
        str | None, typer.Option("--run", metavar="RUN", help="A run folder: a portrait of it, not a drawn person.")
    ] = None,
    portrait: Annotated[
        str | None,
        typer.Option("--portrait", metavar="ID", help="Which: a portrait_id or edit_id of the run; else the first."),
    ] = None,
    generator: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH", help="Of a drawn person, or of the run; else the built-in, or the run's own."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Another seed draws another person.")] = 0,
    expression: Annotated[
        list[str] | None,
        typer.Option("--expression", "-e", metavar="ACTION=VALUE", help="An ARKit coefficient, 0 to 1. Repeatable."),
    ] = None,
    resolution: Annotated[int, typer.Option(help="Grid points along an edge; the work grows with its cube.")] = 192,
    level: Annotated[
        float | None,
        typer.Option(help="Density of the surface, instead of the generator's usual one; higher lies deeper."),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Configuration, e.g. of the storage.")
    ] = None,
) -> None:
    """Write the 3D shape of a portrait, or of a drawn person, with colours and normals."""
    from galatea.animation.shape import ShapeSettings, portrait_mesh, sample_mesh
    from galatea.eg3d.checkpoint import load_generator
    from galatea.eg3d.geometry import check_file_name
    from pipeline.config import compose
    from pipeline.storage import Store
    from pipeline.storage_errors import explained

    check_file_name(file)
    settings = ShapeSettings(resolution, level, _coefficients(expression or ()))
    if run is None:
        if portrait is not None:
            raise ConfigError("--portrait: expected --run RUN with it, the run that the portrait belongs to")
        name = f"person {seed}"
        made = sample_mesh(load_generator(generator or "builtin"), seed, settings)
    else:
        store = Store(run, compose(overrides or ()).storage.options)
        name, capsule = _capsule(store, portrait)
        made = portrait_mesh(load_generator(generator or _generator_of(store)), capsule, settings)
    with explained("write", file):
        file.parent.mkdir(parents=True, exist_ok=True)
        made.save(file)
    size = f"{len(made.vertices):,} vertices, {len(made.faces):,} triangles"
    _out.print(f"{name}: {size}, in {file}", highlight=False, soft_wrap=True, markup=False)


def _coefficients(words: list[str] | tuple[str, ...]) -> dict[str, float]:
    found = {}
    for word in words:
        name, _, value = word.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ConfigError(f"--expression: expected ACTION=VALUE such as jawOpen=0.7, got '{word}'") from None
    return found


def _capsule(run: Store, wanted: str | None) -> tuple[str, Capsule]:
    """Return a portrait's id and its capsule; edits have ids with a dot.

    Raises:
        ConfigError: if the run has no such portrait.
    """
    from galatea.inversion.capsule import Capsule
    from pipeline.manifest import DONE
    from pipeline.report.source import StoredRun

    stage, column = ("edit", "edit_id") if wanted and "." in wanted else ("invert", "portrait_id")
    rows = {str(row[column]): row for row in StoredRun(run).facts(stage) if row["status"] == DONE}
    if not rows:
        raise ConfigError(f"{run.locate(stage)}: expected inverted portraits, found none; run `galatea run` first")
    name = wanted or next(iter(rows))
    if name not in rows:
        known = ", ".join(list(rows)[:_MAX_NAMED]) + (", ..." if len(rows) > _MAX_NAMED else "")
        raise ConfigError(f"--portrait: the run has no inverted portrait '{name}', only {known}")
    return name, Capsule.from_bytes(run.read(str(rows[name]["capsule"])))


def _generator_of(run: Store) -> str:
    """Return the generator that a run was made with, by its own configuration."""
    import yaml

    from pipeline.session import CONFIG_FILE

    if not run.exists(CONFIG_FILE):
        return "builtin"
    config: Any = yaml.safe_load(run.read(CONFIG_FILE))
    return str(config.get("invert", {}).get("generator", "builtin"))
