"""Checks of settings that are numbers, under the names that users give them."""

from __future__ import annotations

from collections.abc import Mapping

from galatea.errors import ConfigError


def check_ranges(section: str, config: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Check that numbers of a configuration lie between two values.

    Raises:
        ConfigError: naming the first that does not, as `section.field`.
    """
    for name, (low, high) in ranges.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{section}.{name}: expected {low:g} to {high:g}, got {value}")
