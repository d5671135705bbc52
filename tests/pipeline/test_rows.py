"""Rows by number, from files that are read piece by piece."""

from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galatea.errors import StorageError
from pipeline.rows import RowReader
from pipeline.storage import Store


@dataclass(frozen=True)
class CountingStore(Store):
    """Counts how often each file is opened."""

    num_opened: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def reading(self, path: str) -> Iterator[BinaryIO]:
        self.num_opened[path] += 1
        with super().reading(path) as file:
            yield file


@pytest.fixture
def counting(tmp_path: Path) -> CountingStore:
    return CountingStore(str(tmp_path))


def test_files_are_not_opened_again_for_rows_that_are_at_hand(counting: CountingStore, tmp_path: Path) -> None:
    paths = [f"{number}.parquet" for number in range(20)]
    for number, path in enumerate(paths):
        pq.write_table(pa.table({"number": [number, number + 100]}), tmp_path / path)

    with closing(RowReader(counting)) as reader:
        for row in (0, 1, 0):
            found = [reader.take(path, [row])["number"][0].as_py() for path in paths]
            assert found == [number + 100 * row for number in range(20)]

    assert counting.num_opened == dict.fromkeys(paths, 1)


def test_a_file_that_was_replaced_while_it_was_read_is_told(counting: CountingStore, tmp_path: Path) -> None:
    table = pa.table({"number": list(range(4))})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    for number in range(20):
        pq.write_table(table, tmp_path / f"{number}.parquet")

    with closing(RowReader(counting, max_cached_bytes=1)) as reader:
        assert reader.take("a.parquet", [3])["number"].to_pylist() == [3]
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=4)
        for number in range(20):
            reader.take(f"{number}.parquet", [0])
        with pytest.raises(StorageError, match=r"a\.parquet .*replaced while it was read"):
            reader.take("a.parquet", [3])
