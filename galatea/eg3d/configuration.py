"""Reads the configuration of a checkpoint from JSON into its frozen dataclass, strictly."""

from __future__ import annotations

import dataclasses
import types
import typing
from typing import Any

from galatea.errors import ConfigError, WeightsError


def config_from_json(config_class: type, values: Any, what: str) -> Any:
    """Return a (nested) frozen dataclass from JSON values.

    Raises:
        WeightsError: if a key is unknown, a value has the wrong type, or the configuration is refused.
    """
    hints = typing.get_type_hints(config_class)
    if not isinstance(values, dict):
        raise WeightsError(f"{what}: expected an object for {config_class.__name__}, found {type(values).__name__}")
    unknown = sorted(values.keys() - {field.name for field in dataclasses.fields(config_class)})
    if unknown:
        raise WeightsError(f"{what}: unknown configuration keys {unknown[:5]}; a newer checkpoint?")
    try:
        return config_class(**{key: _typed(hints[key], value, f"{what}: {key}") for key, value in values.items()})
    except ConfigError as error:
        raise WeightsError(f"{what}: {error}") from error


def _typed(hint: Any, value: Any, what: str) -> Any:
    """Return a JSON value as the annotated type: dataclass, tuple, number, text, literal, or one of these or None."""
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return config_from_json(hint, value, what)
    if origin in (types.UnionType, typing.Union):
        members = [member for member in typing.get_args(hint) if member is not type(None)]
        return None if value is None and len(members) < len(typing.get_args(hint)) else _typed(members[0], value, what)
    if origin is tuple and isinstance(value, list):
        arguments = typing.get_args(hint)
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) == len(value):
            return tuple(_typed(kind, item, what) for kind, item in zip(kinds, value, strict=True))
    if origin is typing.Literal and value in typing.get_args(hint):
        return value
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    raise WeightsError(f"{what}: expected {hint}, found {str(value)[:80]!r}")
