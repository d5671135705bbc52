import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from galatea.errors import StorageError
from pipeline import manifest
from pipeline.manifest import (
    BadOutputError,
    build_schema,
    columns_of,
    read_rows,
    read_table,
    to_rows,
    to_table,
    write_table,
)
from pipeline.rows import RowReader
from pipeline.storage import Store
from pipeline.storage_errors import MissingFileError
from stages.base import Column, Kind

COLUMNS = (
    Column("name", Kind.STRING, "who"),
    Column("age", Kind.INT, "years"),
    Column("height", Kind.FLOAT, "metres"),
    Column("is_tall", Kind.BOOL, "above two metres"),
    Column("camera", Kind.TENSOR, "2 by 2", (2, 2)),
    Column("track", Kind.TENSOR, "any number of triples", (-1, 3)),
    Column("picture", Kind.BYTES, "PNG"),
    Column("film", Kind.FILE, "MP4", suffix=".mp4"),
)
SCHEMA = build_schema("people", "name", COLUMNS)


def row(**changes: Any) -> dict[str, Any]:
    whole = {
        "name": "ann",
        "age": 42,
        "height": 1.75,
        "is_tall": False,
        "camera": np.array([[1, 2], [3, 4]]),
        "track": np.ones((5, 3)),
        "picture": b"\x89PNG",
        "film": "people/files/film/ann.mp4",
        "status": "done",
        "source_id": "ann.jpg",
    }
    return {**whole, **changes}


def test_rows_survive_the_file(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    empty = dict.fromkeys([column.name for column in COLUMNS])
    rows = [row(), row(track=np.zeros((0, 3))), {**empty, "status": "failed", "source_id": "bob.jpg"}]

    write_table(store, "people/manifest.parquet", [to_table(rows, SCHEMA)], SCHEMA)
    back = read_rows(store, "people")

    np.testing.assert_array_equal(back[0]["camera"], [[1, 2], [3, 4]])
    assert back[0]["camera"].dtype == np.float32
    assert back[0]["track"].shape == (5, 3)
    assert back[1]["track"].shape == (0, 3)
    assert back[2]["camera"] is None
    assert {name: back[0][name] for name in ("name", "age", "height", "is_tall", "picture", "film")} == {
        name: row()[name] for name in ("name", "age", "height", "is_tall", "picture", "film")
    }
    assert columns_of(read_table(store, "people/manifest.parquet").schema)["film"] == COLUMNS[-1]


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.text(max_size=20),
    age=st.integers(-(2**63), 2**63 - 1),
    height=st.floats(allow_nan=False),
    values=st.lists(st.floats(width=32, allow_nan=False), max_size=8),
    picture=st.binary(max_size=30),
)
def test_any_value_of_the_right_kind_survives(
    tmp_path: Path, name: str, age: int, height: float, values: list[float], picture: bytes
) -> None:
    store = Store(str(tmp_path))
    track = np.array(values, np.float32).repeat(3).reshape(-1, 3)
    table = to_table([row(name=name, age=age, height=height, track=track, picture=picture)], SCHEMA)
    write_table(store, "x", [table], SCHEMA)

    back = to_rows(read_table(store, "x"))[0]

    assert (back["name"], back["age"], back["height"], back["picture"]) == (name, age, height, picture)
    np.testing.assert_array_equal(back["track"], track)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"age": "old"}, "row ann, column age: expected int, got str"),
        ({"age": True}, "column age: expected int, got bool"),
        ({"height": np.ones(2)}, "column height: expected float, got ndarray"),
        ({"is_tall": 1}, "column is_tall: expected bool, got int"),
        ({"picture": "text"}, "column picture: expected bytes, got str"),
        ({"camera": np.ones((2, 3))}, r"column camera: expected shape \(2, 2\), got \(2, 3\)"),
        ({"camera": np.ones(4)}, r"column camera: expected shape \(2, 2\), got \(4,\)"),
        ({"track": np.ones((5, 2))}, r"column track: expected shape \(-1, 3\), got \(5, 2\)"),
        ({"camera": np.array([["a", "b"], ["c", "d"]])}, "column camera: expected numbers"),
    ],
)
def test_a_value_that_does_not_fit_names_row_and_column(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOutputError, match=message):
        to_table([row(**changes)], SCHEMA)


def test_numbers_of_numpy_are_numbers() -> None:
    table = to_table([row(age=np.int32(3), height=np.float32(0.5), is_tall=np.bool_(True))], SCHEMA)

    back = to_rows(table)[0]
    assert (back["age"], back["height"], back["is_tall"]) == (3, 0.5, True)


def test_light_columns_have_statistics_and_row_groups_are_small(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    rows = [row(age=age) for age in range(manifest.ROWS_PER_GROUP + 10)]
    write_table(store, "x", [to_table(rows, SCHEMA)], SCHEMA)

    metadata = pq.read_metadata(tmp_path / "x")

    assert metadata.num_row_groups == 2
    ages = metadata.row_group(1).column(1).statistics
    assert (ages.min, ages.max) == (manifest.ROWS_PER_GROUP, manifest.ROWS_PER_GROUP + 9)


def test_only_the_columns_asked_for_are_read_and_missing_ones_left_out(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_table(store, "x", [to_table([row()], SCHEMA)], SCHEMA)

    assert read_table(store, "x", ["status", "age", "shoe_size"]).column_names == ["status", "age"]


def test_a_manifest_of_a_newer_layout_is_refused(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    newer = SCHEMA.with_metadata({**SCHEMA.metadata, b"galatea.schema_version": b"99"})
    write_table(store, "x", [newer.empty_table()], newer)

    with pytest.raises(StorageError, match=r"layout version 99.*update Galatea"):
        read_table(store, "x")


def test_a_damaged_manifest_says_what_to_do(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    write_table(store, "x", [to_table([row()], SCHEMA)], SCHEMA)
    whole = (tmp_path / "x").read_bytes()
    (tmp_path / "x").write_bytes(whole[: len(whole) // 2])

    with pytest.raises(StorageError, match=r"is damaged.*Delete it"):
        read_table(store, "x")


def test_a_manifest_that_is_not_there_has_no_rows(tmp_path: Path) -> None:
    store = Store(str(tmp_path))

    assert read_rows(store, "people") == []
    with pytest.raises(MissingFileError):
        read_table(store, "people/manifest.parquet")


def test_another_parquet_file_is_not_taken_for_a_manifest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "x")

    with pytest.raises(StorageError, match="not a manifest of Galatea"):
        to_rows(read_table(Store(str(tmp_path)), "x"))


class WatchedFile(io.BytesIO):
    """Remembers which threads read."""

    threads: set[int]

    def read(self, size: int | None = -1, /) -> bytes:
        self.threads.add(threading.get_ident())
        return super().read(size)


class WatchedStore(Store):
    """Hands out watched files."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.threads: set[int] = set()

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        file = WatchedFile(self.read(path))
        file.threads = self.threads
        yield file


def test_no_other_thread_touches_the_file_that_is_read(tmp_path: Path) -> None:
    """Else a program that ends right after a read is aborted now and then, with all its work done."""
    store = WatchedStore(str(tmp_path))
    write_table(store, "people.parquet", [to_table([row()] * 200, SCHEMA)], SCHEMA)

    assert read_table(store, "people.parquet").num_rows == 200
    assert RowReader(store).take("people.parquet", range(100)).num_rows == 100
    assert store.threads == {threading.get_ident()}
