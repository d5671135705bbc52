"""Configuration: dataclass defaults, presets from `conf/`, a file, and `KEY=VALUE` overrides, composed and checked.

Later layers win: defaults of the dataclasses < the preset of each group (`animate=quick`) < a file (`--config`) <
single values (`animate.fps=12`). Everything is checked before anything expensive starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from galatea.errors import ConfigError
from pipeline.settings import ExecutorConfig, FacesConfig, ReportConfig, StorageConfig, TrackingConfig
from pipeline.stage_catalogue import config_classes
from pipeline.typed_values import build, flatten, nearest_key, plain, unknown_key

CONF_FOLDER = Path(__file__).resolve().parent.parent / "conf"
_SURROUNDINGS: dict[str, type] = {
    "faces": FacesConfig,
    "executor": ExecutorConfig,
    "storage": StorageConfig,
    "tracking": TrackingConfig,
    "report": ReportConfig,
}
_SECRET_WORDS = ("key", "secret", "token", "passw", "passphrase", "pwd", "credential", "connection_string", "sas")
_PASSWORD_IN_URL = re.compile(r"(?<=://)([^/@:\s]*):[^/@\s]+(?=@)")
_HIDDEN = "(hidden)"
_SHARED = {"generator": "${generator}", "faces_pack": "${faces.pack}", "faces_root": "${faces.root}"}
"""Fields of several stages that are set in one place, unless a stage is given its own."""


@dataclass(frozen=True)
class Config:
    """The whole configuration of a run."""

    drivers: tuple[str, ...]
    """What moves the portraits: names of presets and camera paths, or URLs of videos, photos and ARKit CSV files."""
    generator: str
    """Name or path of the generator checkpoint of all stages."""
    stages: Mapping[str, Any]
    """Stage name -> that stage's own frozen dataclass."""
    faces: FacesConfig
    executor: ExecutorConfig
    storage: StorageConfig
    tracking: TrackingConfig
    report: ReportConfig
    own: Mapping[str, Any] = field(default_factory=dict)
    """Sections that only one command has, by name."""


def compose(
    overrides: Sequence[str] = (),
    file: str | Path | None = None,
    own: Mapping[str, type] | None = None,
    recorded: str = "",
) -> Config:
    """Compose and check the configuration.

    Args:
        overrides: `GROUP=PRESET` and `KEY=VALUE` in Hydra's grammar.
        file: YAML file with values in the shape that `galatea config` prints.
        own: dataclasses of sections that only the calling command has.
        recorded: the same as text: what a run folder was made with, perhaps by another version, whose keys are left
            out where they are unknown; the file and the overrides go before it.

    Raises:
        ConfigError: a key, preset or value is wrong; the message names it and the nearest valid one.
    """
    defaults = _defaults(own or {})
    choices, values = _split(_parse(overrides), defaults)
    try:
        with initialize_config_dir(config_dir=str(CONF_FOLDER), version_base="1.3"):
            presets = hydra_compose("config", overrides=choices)
        merged = OmegaConf.create(defaults)
        for layer in (presets, _only_known(_parsed(recorded, "of the run folder"), defaults), _read(file)):
            OmegaConf.set_struct(layer, False)
            _check_keys(layer, defaults)
            merged.merge_with(layer)
        for override in values:
            OmegaConf.update(merged, override.key_or_group, override.value(), force_add=True)
        resolved = OmegaConf.to_container(merged, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"The configuration cannot be composed: {error}") from error
    return _typed(resolved, own or {})


def presets() -> dict[str, list[str]]:
    """The groups of `conf/` and the presets of each."""
    groups = sorted(folder for folder in CONF_FOLDER.iterdir() if folder.is_dir())
    return {
        group.name: sorted(file.stem for file in group.glob("*.yaml")) for group in groups if any(group.glob("*.yaml"))
    }


def to_values(config: Config) -> dict[str, Any]:
    """The configuration as nested plain values; what looks like a credential is hidden."""
    values: dict[str, Any] = {"drivers": list(config.drivers), "generator": config.generator}
    values.update({name: plain(stage) for name, stage in config.stages.items()})
    values.update({name: plain(getattr(config, name)) for name in _SURROUNDINGS})
    values.update({name: plain(section) for name, section in config.own.items()})
    return {name: _without_secrets(value) for name, value in values.items()}


def to_flat(config: Config) -> dict[str, Any]:
    """The configuration as dotted key -> plain value, without credentials."""
    return flatten(to_values(config))


def to_yaml(config: Config) -> str:
    """The configuration as YAML that `compose(file=...)` reads back, without credentials."""
    return OmegaConf.to_yaml(OmegaConf.create(to_values(config)))


def to_updated_yaml(config: Config, stages: Iterable[str], recorded: str) -> str:
    """The same for a run of some stages in a folder that others were run in: theirs stays as it was recorded.

    Raises:
        ConfigError: what was recorded cannot be read.
    """
    running = {*stages, *({"generator"} if "invert" in stages else ()), *({"drivers"} if "drive" in stages else ())}
    earlier: Any = OmegaConf.to_container(_parsed(recorded, "of the run folder"), resolve=False)
    owned = {*config.stages, "generator", "drivers"} - running
    kept = {name: value for name, value in earlier.items() if name in owned}
    return OmegaConf.to_yaml(OmegaConf.create(to_values(config) | kept))


def _sections(own: Mapping[str, type]) -> dict[str, type]:
    return config_classes() | _SURROUNDINGS | dict(own)


def _defaults(own: Mapping[str, type]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"drivers": [], "generator": ""} | {
        name: plain(cls()) for name, cls in _sections(own).items()
    }
    for section in defaults.values():
        if isinstance(section, dict):
            section.update({field: source for field, source in _SHARED.items() if field in section})
    return defaults


def _typed(values: Any, own: Mapping[str, type]) -> Config:
    typed: dict[str, Any] = {name: build(cls, values[name], name) for name, cls in _sections(own).items()}
    drivers = values["drivers"]
    if not isinstance(drivers, list) or not all(isinstance(name, str) for name in drivers):
        raise ConfigError(f"drivers: expected a list of names or URLs such as [smile,turn], got {drivers!r}.")
    if not isinstance(values["generator"], str) or not values["generator"]:
        raise ConfigError(f"generator: expected a name or a path, got {values['generator']!r}.")
    extra = {name: typed.pop(name) for name in own}
    surroundings = {item.name: typed.pop(item.name) for item in fields(Config) if item.name in typed}
    return Config(drivers=tuple(drivers), generator=values["generator"], stages=typed, own=extra, **surroundings)


def _parse(overrides: Iterable[str]) -> list[Override]:
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            override = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(f"'{text}' is not understood: expected GROUP=PRESET or KEY=VALUE. {error}") from error
        if override.is_delete() or override.is_sweep_override():
            raise ConfigError(f"'{text}': keys cannot be removed or swept; expected GROUP=PRESET or KEY=VALUE.")
        parsed.append(override)
    return parsed


def _split(overrides: Iterable[Override], defaults: Mapping[str, Any]) -> tuple[list[str], list[Override]]:
    """Tell choices of presets from single values, refusing unknown names."""
    known, groups = flatten(defaults), presets()
    free = tuple(f"{key}." for key, value in known.items() if value == {})
    choices, values = [], []
    for override in overrides:
        key = override.key_or_group
        if key in groups and not isinstance(override.value(), (dict, list)):
            choices.append(f"{key}={_preset(key, str(override.value()), groups[key])}")
        elif key in known or key in defaults or key.startswith(free):
            values.append(override)
        else:
            raise unknown_key(key, [*known, *groups])
    return choices, values


def _preset(group: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        nearest = nearest_key(name, names)
        hint = f" Did you mean '{group}={nearest}'?" if nearest else ""
        raise ConfigError(f"{group}: there is no preset '{name}', only {', '.join(names)}.{hint}")
    return name


def _read(file: str | Path | None) -> DictConfig:
    if file is None:
        return OmegaConf.create({})
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {error}") from error
    return _parsed(text, str(file))


def _parsed(text: str, file: str) -> DictConfig:
    try:
        loaded = OmegaConf.create(text) if text.strip() else OmegaConf.create({})
        container = OmegaConf.to_container(loaded, resolve=False)
    except (YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"The configuration file {file} cannot be read: {error}") from error
    if not isinstance(container, dict) or not all(isinstance(name, str) for name in container):
        raise ConfigError(f"The configuration file {file}: expected `section: {{key: value}}`, got something else.")
    values: DictConfig = OmegaConf.create(_without_hidden(container))
    return values


def _without_hidden(value: Any) -> Any:
    """Leave out credentials that were hidden when the file was written: they come from elsewhere."""
    if not isinstance(value, Mapping):
        return value
    return {key: _without_hidden(item) for key, item in value.items() if not _is_hidden(item)}


def _is_hidden(value: Any) -> bool:
    return any(map(_is_hidden, value)) if isinstance(value, list) else isinstance(value, str) and _HIDDEN in value


def _only_known(layer: DictConfig, defaults: Mapping[str, Any]) -> DictConfig:
    known: DictConfig = OmegaConf.create({})
    for section, values in layer.items():
        default = defaults.get(str(section))
        if isinstance(default, dict) and isinstance(values, DictConfig):
            known[section] = {key: value for key, value in values.items() if key in default}
        elif default is not None and not isinstance(default, dict):
            known[section] = values
    return known


def _check_keys(layer: DictConfig, defaults: Mapping[str, Any]) -> None:
    known = flatten(defaults)
    free = tuple(f"{key}." for key, value in known.items() if value == {})
    for key in flatten(OmegaConf.to_container(layer, resolve=False)):  # type: ignore[arg-type]
        if key not in known and key not in defaults and not key.startswith(free):
            raise unknown_key(key, known)


def without_secret(argument: str) -> str:
    """Return an argument of a command line without what looks like a credential."""
    key, equals, value = argument.partition("=")
    if equals and _is_secret(key, value):
        return f"{key}={_HIDDEN}"
    return _PASSWORD_IN_URL.sub(rf"\1:{_HIDDEN}", argument)


def _without_secrets(value: Any) -> Any:
    if isinstance(value, str):
        return _PASSWORD_IN_URL.sub(rf"\1:{_HIDDEN}", value)
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {key: _HIDDEN if _is_secret(key, item) else _without_secrets(item) for key, item in value.items()}


def _is_secret(key: str, value: object) -> bool:
    is_text = isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""
    return is_text and any(word in key.lower() for word in _SECRET_WORDS)
