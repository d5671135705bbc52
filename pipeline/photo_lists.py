"""Lists of photos: the column of URIs of a CSV or Parquet file."""

from __future__ import annotations

from collections.abc import Sequence

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
    content, parsing = _in_arrow(data), pa_csv.ParseOptions(newlines_in_values=True)
    try:
        with pa_csv.open_csv(pa.BufferReader(content), parse_options=parsing) as reader:
            column = _column(uri, reader.schema.names)
        as_text = pa_csv.ConvertOptions(column_types={column: pa.string()}, include_columns=[column])
        table = pa_csv.read_csv(pa.BufferReader(content), parse_options=parsing, convert_options=as_text)
        return _texts(table[column])
    except pa.ArrowException as error:
        raise _unreadable(uri, error) from error


def names_in_parquet(uri: str, data: bytes) -> list[str | None]:
    """The names in a Parquet list.

    Raises:
        ConfigError: it is damaged, or has no column of URIs.
    """
    try:
        with pq.ParquetFile(pa.BufferReader(_in_arrow(data))) as file:
            column = _column(uri, file.schema_arrow.names)
            return _texts(file.read(columns=[column])[column])
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(uri, error) from error


def _unreadable(uri: str, error: Exception) -> ConfigError:
    return ConfigError(f"inputs: {uri} cannot be read as a list of URIs: {error}")


def _column(uri: str, columns: Sequence[str]) -> str:
    """The column of names; no other one is read, whatever is in it."""
    column = next((name for name in _COLUMNS if name in columns), None)
    if column is None:
        expected = ", ".join(_COLUMNS)
        raise ConfigError(f"inputs: {uri} has columns {list(columns)}, expected one called {expected}")
    return column


def _texts(values: pa.ChunkedArray) -> list[str | None]:
    names: list[str | None] = values.cast(pa.string()).to_pylist()
    return names


def _in_arrow(data: bytes) -> pa.Buffer:
    """Arrow's own memory: its threads may let go of it later than the program ends, which Python's forbids."""
    memory = pa.BufferOutputStream()
    memory.write(data)
    return memory.getvalue()
