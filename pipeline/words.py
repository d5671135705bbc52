"""Words that people type: which of them are configuration, and which can name no file."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from galatea.errors import ConfigError


def is_configuration(word: str) -> bool:
    """Whether a word is KEY=VALUE or GROUP=PRESET; a URL, or a file that exists, may hold a `=` too."""
    key, sign, _ = word.partition("=")
    return bool(sign) and "://" not in key and not _exists(word)


def check_path(name: str, word: str) -> None:
    """Refuse a path that is empty or that cannot be written down.

    Raises:
        ConfigError: it is so; the message names the option or argument.
    """
    if not word.strip():
        raise ConfigError(f"{name}: expected a path or URL, got an empty one. Is a variable of the shell not set?")
    try:
        word.encode()
    except UnicodeEncodeError as error:
        shown = word.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        raise ConfigError(f"{name}: {shown} is not UTF-8: rename it, or choose another") from error


def photo_name(place: str) -> str:
    """Return the name of a photo, by its path or URL, without what a folder's name should not hold."""
    name = PurePosixPath(place.partition("://")[2].partition("?")[0] if "://" in place else place).stem
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "photo"


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):  # too long for a name, or with a null byte
        return False
