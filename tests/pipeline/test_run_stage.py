import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from galatea.errors import ConfigError, InputError, StorageError, WeightsError
from pipeline.compaction import compact
from pipeline.journal import journal_path, shard_paths
from pipeline.loading import UnreadableInputError
from pipeline.manifest import build_schema, manifest_path, read_rows
from pipeline.requests import Request, Requests
from pipeline.run_stage import Progress, StageSummary, run_stage
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from pipeline.storage_errors import DamagedFileError
from pipeline.worker import StageContractError
from stages.base import Record
from tests.pipeline.comparing import comparable_rows
from tests.pipeline.failing_disk import FailingFileSystem
from tests.pipeline.small_stages import CopyStage, NumberConfig, NumberStage, UnfitStage, number_requests

LOCAL = ExecutorConfig(kind="local")
NAMES = [f"n{number}" for number in range(9)]
HARD = ["bad1", "faceless2", "crash3", "huge4", "misshapen5"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path))


def run_numbers(
    store: Store,
    names: Sequence[str] = NAMES,
    config: NumberConfig = NumberConfig(),  # noqa: B008 - frozen
    executor: ExecutorConfig = LOCAL,
    fingerprint: str = "",
) -> StageSummary:
    requests = number_requests(names, fingerprint)
    return run_stage(NumberStage(config), requests, store, executor)


def num_computed(summary: StageSummary) -> int:
    return summary.num_records - summary.num_reused


def test_rows_have_the_order_of_the_requests_whatever_the_batches(store: Store) -> None:
    run_numbers(store, NAMES[::-1], NumberConfig(batch_size=4))

    assert [row["number_id"] for row in read_rows(store, "number")] == NAMES[::-1]


def test_every_way_to_fail_is_a_row_and_leaves_the_others_alone(store: Store) -> None:
    names = [name for pair in zip(NAMES, HARD, strict=False) for name in pair] + NAMES[len(HARD) :]

    summary = run_numbers(store, names)

    rows = {row["source_id"]: row for row in read_rows(store, "number")}
    assert list(rows) == names
    assert {name: (rows[name]["status"], rows[name]["error_code"]) for name in HARD} == {
        "bad1": ("failed", "bad_input"),
        "faceless2": ("no_face", "no_face"),
        "crash3": ("failed", "unexpected"),
        "huge4": ("failed", "out_of_memory"),
        "misshapen5": ("failed", "bad_output"),
    }
    assert "ZeroDivisionError: a programming error (small_stages.py:" in rows["crash3"]["error_message"]
    for index, name in enumerate(names):
        if name in NAMES:
            assert rows[name]["product"] == 2.0 * index
            assert store.read(rows[name]["film"]) == f"film of {name}".encode()
    assert (summary.num_done, summary.num_failed) == (9, 5)


def test_failed_rows_keep_their_ids(store: Store) -> None:
    run_numbers(store, HARD)

    assert [row["number_id"] for row in read_rows(store, "number")] == HARD
    assert all(row["film"] is None and row["grid"] is None for row in read_rows(store, "number"))


def test_out_of_memory_halves_the_batch_until_it_fits(store: Store) -> None:
    summary = run_numbers(store, config=NumberConfig(batch_size=8, max_batch=3))

    assert summary.status == {"done": 9}


def test_unchanged_requests_are_answered_from_the_manifest(store: Store) -> None:
    first = run_numbers(store, NAMES + HARD)
    stamp = store.entry(manifest_path("number")).stamp
    second = run_numbers(store, NAMES + HARD)

    assert (num_computed(first), num_computed(second)) == (14, 0)
    assert store.entry(manifest_path("number")).stamp == stamp
    assert (second.status, second.errors, second.fingerprint) == (first.status, first.errors, first.fingerprint)


def test_more_requests_compute_only_what_is_new_and_fewer_drop_rows_and_files(store: Store) -> None:
    run_numbers(store, NAMES[:5])
    more = run_numbers(store, NAMES)
    fewer = run_numbers(store, NAMES[:2])

    assert (num_computed(more), more.num_rows) == (4, 9)
    assert (num_computed(fewer), fewer.num_rows) == (0, 2)
    assert len(store.files("number/files")) == 2


def test_files_without_a_row_are_swept_unless_they_are_newer_than_the_run(store: Store, tmp_path: Path) -> None:
    run_numbers(store, NAMES[:5])
    films = tmp_path / "number/files/film"
    (films / "old.bin").write_bytes(b"of a batch that was killed")
    (films / "new.bin").write_bytes(b"of another process")
    os.utime(films / "new.bin", (time.time() + 60, time.time() + 60))

    run_numbers(store)

    assert not (films / "old.bin").exists()
    assert (films / "new.bin").exists()
    assert len(list(films.iterdir())) == 10


def test_another_order_is_taken_over_without_computing(store: Store) -> None:
    requests = number_requests(NAMES)
    run_stage(NumberStage(NumberConfig()), requests, store, LOCAL)

    summary = run_stage(NumberStage(NumberConfig()), replace(requests, items=requests.items[::-1]), store, LOCAL)

    assert num_computed(summary) == 0
    assert [row["number_id"] for row in read_rows(store, "number")] == NAMES[::-1]


def test_changed_inputs_or_configuration_are_computed_again(store: Store) -> None:
    run_numbers(store)

    assert num_computed(run_numbers(store, fingerprint="other")) == 9
    assert num_computed(run_numbers(store, config=NumberConfig(factor=3))) == 9
    assert [row["product"] for row in read_rows(store, "number")] == [3.0 * index for index in range(9)]
    assert len(store.files("number/files")) == 9


def test_failed_records_are_computed_again_only_when_asked(store: Store) -> None:
    run_numbers(store, NAMES + HARD)

    assert num_computed(run_numbers(store, NAMES + HARD)) == 0
    assert num_computed(run_numbers(store, NAMES + HARD, executor=replace(LOCAL, retry_failed=True))) == 5


def test_several_rows_of_one_record_stay_together_and_join_with_their_source(store: Store) -> None:
    from pipeline.requests import Join

    names = ["ab", "abc", "abcd", "abcde"]
    run_numbers(store, names)
    join = Join(manifest_path("number"), ("number_id", "product", "film", "grid"))
    requests = Requests([Request(name, "", {"number_id": name}, (row,)) for row, name in enumerate(names)], (join,))

    summary = run_stage(CopyStage(NumberConfig(batch_size=2)), requests, store, LOCAL)

    rows = read_rows(store, "copy")
    assert (summary.num_records, summary.num_rows) == (4, 6)
    assert [row["copy_id"] for row in rows] == ["ab_0", "abc_0", "abc_1", "abcd_0", "abcde_0", "abcde_1"]
    assert [row["total"] for row in rows] == [0, 2 + 12, 3 + 12, 4 + 24, 6 + 36, 7 + 36]
    assert [row["film_length"] for row in rows] == [len("film of ") + len(row["number_id"]) for row in rows]


def test_a_journal_is_compacted_whatever_order_and_repetition_it_has(store: Store, tmp_path: Path) -> None:
    whole = Store(str(tmp_path / "whole"))
    run_numbers(whole)
    run_numbers(store, NAMES[4:])
    journal = tmp_path / journal_path("number")
    journal.mkdir(parents=True, exist_ok=True)
    (journal / "0-old-00000.parquet").write_bytes((tmp_path / manifest_path("number")).read_bytes())
    (journal / "9-damaged-00000.parquet").write_bytes(b"half a shard")

    summary = run_numbers(store)

    assert num_computed(summary) == 4
    assert [row["number_id"] for row in comparable_rows(store, "number")] == NAMES
    assert shard_paths(store, "number") == []


@pytest.fixture
def failing(tmp_path: Path) -> Iterator[Store]:
    """A store on which reads fail once the test says so."""
    yield Store(f"failing://{tmp_path}")
    FailingFileSystem.failures.clear()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


SMALL_SHARDS = replace(LOCAL, shard_rows=3)


def test_a_shard_that_cannot_be_read_at_the_end_loses_nothing(failing: Store, tmp_path: Path) -> None:
    FailingFileSystem.failures["-00001.parquet"] = [OSError(errno.EINVAL, "odd answer")]

    with pytest.raises(StorageError, match=r"-00001.parquet: OSError.*odd answer.*rows of number are kept: run again"):
        run_numbers(failing, config=NumberConfig(batch_size=3), executor=SMALL_SHARDS)
    assert not failing.exists(manifest_path("number"))
    assert not failing.exists("number/statistics.json")
    assert (len(shard_paths(failing, "number")), len(failing.files("number/files"))) == (3, 9)

    summary = run_numbers(failing, config=NumberConfig(batch_size=3))

    assert (num_computed(summary), summary.num_rows) == (0, 9)
    assert len(list((tmp_path / "number/files/film").iterdir())) == 9


@pytest.mark.parametrize("num_good_reads", [0, 1], ids=["planning", "compaction"])
def test_an_old_manifest_that_cannot_be_read_stops_the_run_and_is_kept(
    failing: Store, tmp_path: Path, num_good_reads: int
) -> None:
    run_numbers(failing)
    before = contents(tmp_path)
    failures = [*[None] * num_good_reads, OSError(errno.EINVAL, "odd answer")]
    FailingFileSystem.failures[manifest_path("number")] = failures

    with pytest.raises(StorageError, match=r"manifest.parquet: OSError.*odd answer.*run again"):
        run_numbers(failing, [*NAMES, "new"])
    assert before.items() <= contents(tmp_path).items()

    summary = run_numbers(failing, [*NAMES, "new"])

    assert (num_computed(summary), summary.num_rows) == (1 - num_good_reads, 10)
    assert len(failing.files("number/files")) == 10


def test_a_computed_record_without_a_row_stops_the_run_and_nothing_is_deleted(store: Store, tmp_path: Path) -> None:
    run_numbers(store)
    before = contents(tmp_path)
    stage = NumberStage(NumberConfig())
    schema = build_schema(stage.name, stage.id_column, stage.produces)
    rows = read_rows(store, "number")
    keys = [(row["source_id"], row["fingerprint"]) for row in rows[:5]] + [("lost", "1"), ("gone", "2")]

    with pytest.raises(StorageError, match=r"2 of 7 records have no row.*\(lost, gone\).*run again"):
        compact(store, "number", schema, keys, time.time())

    assert contents(tmp_path) == before


def test_a_file_damaged_after_planning_stops_the_run(store: Store, tmp_path: Path) -> None:
    run_numbers(store, NAMES[:5])
    manifest = tmp_path / manifest_path("number")
    whole = manifest.read_bytes()
    requests = number_requests(NAMES)

    def damage(progress: Progress) -> None:
        if progress.done:
            manifest.write_bytes(b"half a manifest")

    with pytest.raises(DamagedFileError, match="finished rows of number are kept"):
        run_stage(NumberStage(NumberConfig()), requests, store, LOCAL, damage)

    assert len(store.files("number/files")) == 9
    manifest.write_bytes(whole)
    assert num_computed(run_numbers(store)) == 0


def test_a_manifest_that_was_deleted_is_made_again(store: Store) -> None:
    run_numbers(store)
    store.delete(manifest_path("number"))

    assert num_computed(run_numbers(store)) == 9
    assert len(read_rows(store, "number")) == 9


class FickleStage(NumberStage):
    """Cannot do again what it did once."""

    is_tired: ClassVar[bool] = False

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        if self.is_tired:
            raise InputError("not again")
        return super().process(batch)


def test_a_lost_file_that_cannot_be_made_again_is_a_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = number_requests(NAMES)
    run_stage(FickleStage(NumberConfig()), requests, store, LOCAL)
    store.delete(read_rows(store, "number")[3]["film"])
    monkeypatch.setattr(FickleStage, "is_tired", True)

    summary = run_stage(FickleStage(NumberConfig()), requests, store, LOCAL)

    assert (num_computed(summary), summary.status) == (1, {"done": 8, "failed": 1})
    assert read_rows(store, "number")[3]["error_message"] == "not again"
    assert num_computed(run_stage(FickleStage(NumberConfig()), requests, store, LOCAL)) == 0


class WaitingStage(NumberStage):
    """Lacks a file, until it is there, and dies of some records."""

    is_there: ClassVar[bool] = False

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        if not self.is_there:
            raise UnreadableInputError("not there")
        if any(record["number_id"] == NAMES[5] for record in batch):
            raise WeightsError("stopped")
        return super().process(batch)


def test_what_was_made_after_a_wait_is_kept_when_the_run_then_stops(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = number_requests(NAMES)
    run_stage(WaitingStage(NumberConfig()), requests, store, LOCAL)
    monkeypatch.setattr(WaitingStage, "is_there", True)

    with pytest.raises(WeightsError):
        run_stage(WaitingStage(NumberConfig()), requests, store, LOCAL)
    monkeypatch.setattr(WaitingStage, "process", NumberStage.process)

    summary = run_stage(WaitingStage(NumberConfig()), requests, store, LOCAL)
    assert (num_computed(summary), summary.status) == (5, {"done": 9})


def test_progress_counts_to_the_end(store: Store) -> None:
    run_numbers(store, NAMES[:3])
    seen: list[Progress] = []
    requests = number_requests([*NAMES, "bad1"])

    run_stage(NumberStage(NumberConfig()), requests, store, LOCAL, seen.append)

    assert (seen[0].total, seen[0].reused, seen[0].done, seen[0].failed) == (10, 3, 0, 0)
    assert (seen[-1].done, seen[-1].failed) == (6, 1)
    assert seen[0].eta_seconds is None
    assert seen[-1].eta_seconds == 0


def test_an_id_that_is_asked_for_twice_is_refused(store: Store) -> None:
    with pytest.raises(ConfigError, match="asked for n1 twice"):
        run_numbers(store, ["n0", "n1", "n1"])


def test_an_error_that_stops_the_run_leaves_no_manifest(store: Store) -> None:
    requests = number_requests(NAMES)

    with pytest.raises(WeightsError, match="weights are damaged"):
        run_stage(UnfitStage(NumberConfig()), requests, store, LOCAL)

    assert not store.exists(manifest_path("number"))


class ShortStage(NumberStage):
    """Forgets a record."""

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        return super().process(batch)[1:]


class OddStage(NumberStage):
    """Returns a column that it does not declare."""

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        rows = super().process(batch)
        return [[{name: value for name, value in row.items() if name != "count"} | {"cuont": 1}] for [row] in rows]


class SilentStage(NumberStage):
    """Returns no row for a record."""

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        return [[] for _ in batch]


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (ShortStage, "returned 3 lists of rows for 4 records"),
        (OddStage, r"missing \['count'\], not declared \['cuont'\]"),
    ],
)
def test_a_stage_that_breaks_its_contract_stops_the_run(store: Store, stage: type[NumberStage], message: str) -> None:
    with pytest.raises(StageContractError, match=message):
        run_stage(stage(NumberConfig()), number_requests(NAMES), store, LOCAL)


def test_a_record_without_rows_failed(store: Store) -> None:
    requests = number_requests(NAMES[:1])

    run_stage(SilentStage(NumberConfig()), requests, store, LOCAL)

    assert read_rows(store, "number")[0]["error_message"] == "record n0: the stage returned no row"


def test_an_id_that_cannot_be_a_file_name_fails_its_record(store: Store) -> None:
    run_numbers(store, ["a/b", "n1"])

    assert [row["status"] for row in read_rows(store, "number")] == ["failed", "done"]
