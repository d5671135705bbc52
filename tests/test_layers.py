"""Who may import whom. `lint-imports` checks the layers; here are the libraries that only one file may touch."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("galatea", "stages", "pipeline", "training")
ALLOWED = {
    "ray": {"pipeline/ray_pool.py", "pipeline/ray_actors.py"},
    "mlflow": {"pipeline/tracking.py", "training/tracking.py"},
    "hydra": {"pipeline/config.py"},
    "omegaconf": {"pipeline/config.py"},
    "fsspec": {"pipeline"},
    "pyarrow": {"pipeline"},
    "rich": {"pipeline"},
    "typer": {"pipeline/cli.py", "pipeline/cli_mesh.py", "pipeline/cli_models.py", "pipeline/cli_synthesize.py"},
}


@cache
def _imports(file: Path) -> tuple[str, ...]:
    return tuple(_names(file))


def _names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""


@pytest.mark.parametrize("library", ALLOWED)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    files = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    assert len(files) > 20
    users = {
        file.relative_to(ROOT).as_posix()
        for file in files
        if any(name.split(".")[0] == library for name in _imports(file))
    }
    allowed = ALLOWED[library]
    assert {user for user in users if user not in allowed and user.split("/")[0] not in allowed} == set()


def test_the_layers_hold() -> None:
    answer = subprocess.run(
        [str(Path(sys.executable).parent / "lint-imports")], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout


def test_help_is_fast_because_it_loads_nothing_heavy() -> None:
    code = "import sys, pipeline.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "mlflow", "hydra", "pyarrow", "av", "scipy"} & set(answer.stdout.split())
