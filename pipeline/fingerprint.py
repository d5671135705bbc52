"""Fingerprints: what a row depends on, as a hash; a row is computed again when, and only when, its own changed.

The code of a stage is the source of its module and of everything in the project that it imports, found without
running it. So an edit in the generator's code leaves alignments and motions as they are; inversions, which render
pictures too, depend on much of the animation code.

Of the configuration everything counts but fields with the metadata `affects_rows: False`: those that say which rows are
asked for, or how many are computed at once, which only moves their last digits.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import galatea
from stages.base import Stage

_PACKAGES = {"galatea", "stages", "training"}
_NUM_DIGITS = 16


def digest(*parts: str) -> str:
    """A short hash (64 bits as hex) of an ordered list of strings."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_NUM_DIGITS]


def stage_fingerprint(stage: Stage) -> str:
    """Hash of a stage's code, configuration and models.

    Raises:
        WeightsError: a model is not installed.
    """
    models = json.dumps([dataclasses.asdict(model) for model in stage.models()], sort_keys=True)
    return digest(stage.name, code_hash(type(stage).__module__), _config_text(stage), models)


def row_fingerprint(stage: str, *inputs: str) -> str:
    """Hash of a stage's fingerprint and those of the rows that its input record was joined from."""
    return digest(stage, *inputs)


def code_version(stage: Stage) -> str:
    """For people: the release and the hash of the code that the stage runs."""
    return f"{galatea.__version__}+{code_hash(type(stage).__module__)}"


@cache
def code_hash(module: str) -> str:
    """Hash of the source of a module and of the project's modules that it imports, directly or not."""
    sources = {name: path.read_text(encoding="utf-8") for name, path in source_files(module).items()}
    return digest(*(part for name in sorted(sources) for part in (name, sources[name])))


def source_files(module: str) -> dict[str, Path]:
    """Where the source of a module is, and of the project's modules that it imports, directly or not; by name."""
    files: dict[str, Path] = {}
    queue = [module]
    while queue:
        name = queue.pop()
        path = _source_path(name)
        if name in files or path is None:
            continue
        files[name] = path
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        found = _imports(path.read_text(encoding="utf-8"), package)
        queue += [other for other in found if other.split(".")[0] in _PACKAGES]
    return files


def _config_text(stage: Stage) -> str:
    config = getattr(stage, "config", None)
    if config is None or not dataclasses.is_dataclass(config):
        return ""
    relevant = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.metadata.get("affects_rows", True)
    }
    return json.dumps(relevant, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _source_path(module: str) -> Path | None:
    """Where the source of a module is, by its name alone: looking it up through `importlib` would run its parents."""
    loaded = sys.modules.get(module)
    if loaded is not None and getattr(loaded, "__file__", None):
        return Path(str(loaded.__file__))
    top, *parts = module.split(".")
    package = importlib.util.find_spec(top)
    if package is None or package.origin is None:
        return None
    base = Path(package.origin).parent.joinpath(*parts)
    candidates = (base.with_suffix(".py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def _imports(source: str, package: str) -> Iterator[str]:
    """Names of modules that a source imports; `from a import b` may mean a module b, so both are given."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
