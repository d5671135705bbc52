"""Turns plain values (from YAML or a command line) into typed frozen dataclasses, with errors that name the field."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from galatea.errors import ConfigError

_Record = TypeVar("_Record")

_SCALARS: dict[type, tuple[str, tuple[type, ...]]] = {
    bool: ("true or false", (bool,)),
    int: ("a whole number", (int,)),
    float: ("a number", (int, float)),
    str: ("text", (str, int, float)),
    Path: ("a path", (str, Path)),
}


def build(cls: type[_Record], values: Mapping[str, Any], path: str = "") -> _Record:
    """Make a dataclass from plain values, checking every key and type.

    Args:
        cls: a dataclass; nested dataclasses, tuples, enums, literals and unions are followed.
        values: field name -> plain value; missing fields keep their defaults.
        path: dotted name of the dataclass in the whole configuration, for messages.

    Raises:
        ConfigError: an unknown key (with the nearest valid one), a value of the wrong type, or one that the
            dataclass itself refuses.
    """
    if not isinstance(values, Mapping):
        raise _wrong(path, "a group of settings", values)
    hints = get_type_hints(cls)
    names = [item.name for item in dataclasses.fields(cls) if item.init]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise unknown_key(_join(path, key), [_join(path, name) for name in names])
    try:
        return cls(**{key: _value(hints[key], value, _join(path, key)) for key, value in values.items()})
    except ConfigError as error:
        raise _located(error, path) from error


def unknown_key(key: str, valid: Iterable[str]) -> ConfigError:
    """The error for a configuration key that does not exist, naming the nearest one that does."""
    nearest = nearest_key(key, valid)
    hint = f" Did you mean '{nearest}'?" if nearest else ""
    return ConfigError(f"Unknown configuration key '{key}'.{hint} `galatea config` prints all keys.")


def nearest_key(key: str, valid: Iterable[str]) -> str | None:
    """The valid dotted key closest to what was typed: by the whole name, else by its last part."""
    choices = list(valid)
    close = difflib.get_close_matches(key, choices, n=1, cutoff=0.6)
    if close:
        return close[0]
    by_leaf = {choice.rsplit(".", 1)[-1]: choice for choice in reversed(choices)}
    close = difflib.get_close_matches(key.rsplit(".", 1)[-1], list(by_leaf), n=1, cutoff=0.6)
    return by_leaf[close[0]] if close else None


def plain(value: Any) -> Any:
    """The reverse of `build`: dataclasses, tuples, enums and paths as dicts, lists and scalars."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {item.name: plain(getattr(value, item.name)) for item in dataclasses.fields(value) if item.init}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value


def flatten(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested mappings as one flat mapping with dotted keys; an empty mapping is kept as a value."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = _join(path, key)
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, name))
        else:
            flat[name] = value
    return flat


def _join(path: str, key: object) -> str:
    # YAML takes numbers and truth values as keys, too.
    return f"{path}.{key}" if path else str(key)


def _located(error: ConfigError, path: str) -> ConfigError:
    """Name the section in the messages of dataclasses that do not know where they stand in the whole."""
    message = str(error)
    if not path or path in message:
        return error
    return ConfigError(f"{path}: {message}")


def _value(hint: Any, value: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(arguments, value, path)
    if origin is Literal:
        return _choice(arguments, value, path)
    if origin in (tuple, list, Sequence):
        return _sequence(origin, arguments, value, path)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise _wrong(path, "a mapping (key: value)", value)
        return {str(key): _value(arguments[1], item, _join(path, str(key))) for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(hint, value, path)  # type: ignore[arg-type]
    return _scalar(hint, value, path)


def _scalar(hint: Any, value: Any, path: str) -> Any:
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(_choice(tuple(item.value for item in hint), value, path))
    if hint in _SCALARS:
        expected, accepted = _SCALARS[hint]
        if not isinstance(value, accepted) or (isinstance(value, bool) and hint is not bool):
            raise _wrong(path, expected, value)
        return hint(value)
    if hint is object:
        return value
    raise _wrong(path, f"a value of type {hint}, which has no form in YAML", value)


def _choice(choices: Sequence[Any], value: Any, path: str) -> Any:
    if value not in choices:
        close = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise ConfigError(f"{path}: expected one of {', '.join(map(str, choices))}, got {value!r}.{hint}")
    return value


def _union(arms: Sequence[Any], value: Any, path: str) -> Any:
    if value is None:
        if type(None) in arms:
            return None
        raise _wrong(path, "a value", value)
    failure: ConfigError | None = None
    for arm in arms:
        if arm is not type(None):
            try:
                return _value(arm, value, path)
            except ConfigError as error:
                failure = failure or error
    raise failure or _wrong(path, "nothing", value)


def _sequence(origin: Any, arguments: Sequence[Any], value: Any, path: str) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _wrong(path, "a list such as [a,b]", value)
    if origin is tuple and Ellipsis not in arguments:
        if len(value) != len(arguments):
            raise _wrong(path, f"{len(arguments)} values", value)
        return tuple(
            _value(arm, item, f"{path}[{i}]") for i, (arm, item) in enumerate(zip(arguments, value, strict=True))
        )
    items = [_value(arguments[0], item, f"{path}[{i}]") for i, item in enumerate(value)]
    return items if origin is list else tuple(items)


def _wrong(path: str, expected: str, got: object) -> ConfigError:
    return ConfigError(f"{path}: expected {expected}, got {got!r}.")
