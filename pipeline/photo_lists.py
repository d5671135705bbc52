"""Lists of photos: the column of URIs of a CSV or Parquet file."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from galatea.errors import ConfigError

_COLUMNS = ("uri", "url", "path", "file")


def names_in_csv(uri: str, data: bytes) -> list[str | None]:
    """The names in a CSV list, as they are written there.

    Raises:
        ConfigError: it is not UTF-8, damaged, or has no column of URIs.
    """
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"inputs: {uri} is not UTF-8 (line {line}): save the list as UTF-8, and run again") from error
    # Names are text, also where all of them look like numbers or dates.
    as_text = pa_csv.ConvertOptions(column_types=dict.fromkeys(_COLUMNS, pa.string()))
    try:
        return _names(uri, pa_csv.read_csv(_in_arrow(data), convert_options=as_text))
    except pa.ArrowException as error:
        raise _unreadable(uri, error) from error


def names_in_parquet(uri: str, data: bytes) -> list[str | None]:
    """The names in a Parquet list.

    Raises:
        ConfigError: it is damaged, or has no column of URIs.
    """
    try:
        return _names(uri, pq.read_table(_in_arrow(data)))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: Exception) -> ConfigError:
    return ConfigError(f"inputs: {uri} cannot be read as a list of URIs: {error}")


def _names(uri: str, table: pa.Table) -> list[str | None]:
    column = next((name for name in _COLUMNS if name in table.column_names), None)
    if column is None:
        expected = ", ".join(_COLUMNS)
        raise ConfigError(f"inputs: {uri} has columns {table.column_names}, expected one called {expected}")
    names: list[str | None] = table[column].cast(pa.string()).to_pylist()
    return names


def _in_arrow(data: bytes) -> pa.BufferReader:
    """Arrow's own memory: its threads may let go of it later than the program ends, which Python's forbids."""
    memory = pa.BufferOutputStream()
    memory.write(data)
    return pa.BufferReader(memory.getvalue())
