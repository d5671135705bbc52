"""The worker: runs a loaded stage over batches and publishes what comes out. The one place that catches everything.

A batch that fails is run again record by record, one that runs out of memory in halves; a record that fails alone
becomes a row that says why. Only a `RunError` leaves the worker: of the stage, of the storage, or because what happened
is not the records' fault (see `pipeline.failures`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import torch

from galatea.errors import RecordError, RunError
from pipeline.failures import Failure, FailureWatch, check_device, failure_of, free_memory, is_out_of_memory
from pipeline.fingerprint import row_fingerprint
from pipeline.journal import JournalWriter
from pipeline.loading import RecordLoader
from pipeline.manifest import DONE, QUARANTINED, BadOutputError, encode_value, to_table
from pipeline.requests import Request
from pipeline.worker_task import Batch, BatchReport, WorkerTask
from stages.base import Kind, Record

_log = logging.getLogger(__name__)
_LIGHT = {Kind.STRING, Kind.INT, Kind.FLOAT, Kind.BOOL}


class StageContractError(RunError):
    """A stage broke its contract: a programming error, which would hit every record."""

    code = "stage_contract"


@dataclass(frozen=True)
class _Outcome:
    """What became of one record: its output rows, or why there are none."""

    rows: tuple[Record, ...] = ()
    failure: Failure | None = None
    seconds: float = 0.0


class Worker:
    """Runs one stage in one process; `name` is unique, and names its journal shards."""

    def __init__(self, task: WorkerTask, name: str) -> None:
        self._task = task
        self._schema = task.schema
        self._journal = JournalWriter(task.run, task.stage.name, name, self._schema, task.limits)
        self._loader = RecordLoader(task.run, task.stage.requires, task.joins, task.uris, task.input_options)
        self._watch = FailureWatch(task.stage.name)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._loading: dict[tuple[str, int], Future[list[Record | RecordError]]] = {}
        self._taken: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def setup(self, device: torch.device) -> None:
        """Load the models.

        Raises:
            RunError: the stage cannot run here (weights, configuration).
        """
        self._task.stage.setup(device)

    def prefetch(self, batch: Batch) -> None:
        """Begin to read the records of a batch that will be run soon."""
        with self._lock:
            if batch.key not in self._loading and batch.key not in self._taken:
                self._loading[batch.key] = self._pool.submit(self._loader.load, batch.items)

    def run(self, batch: Batch) -> BatchReport:
        """Process a batch and publish its rows.

        Raises:
            RunError: nothing that follows could succeed.
        """
        self.prefetch(batch)
        with self._lock:
            self._taken.add(batch.key)
            loading = self._loading.pop(batch.key)
        loaded = loading.result()
        records = [record for record in loaded if not isinstance(record, RecordError)]
        outcomes = iter(self._process(records) if records else [])
        all_outcomes = [
            _Outcome(failure=failure_of(record)) if isinstance(record, RecordError) else next(outcomes)
            for record in loaded
        ]
        for request, record, outcome in zip(batch.items, loaded, all_outcomes, strict=True):
            if not isinstance(record, RecordError):
                self._watch.note(request.source_id, outcome.failure)
        tables = [
            self._publishable(request, {} if isinstance(record, RecordError) else record, outcome)
            for request, record, outcome in zip(batch.items, loaded, all_outcomes, strict=True)
        ]
        self._journal.publish(pa.concat_tables(tables))
        num_done = sum(_is_done(table) for table in tables)
        seconds = sum(outcome.seconds for outcome in all_outcomes)
        return BatchReport(num_done, len(tables) - num_done, seconds)

    def quarantine(self, batch: Batch, cause: str) -> BatchReport:
        """Publish rows for records that kill the process that works on them."""
        failure = Failure(QUARANTINED, "killed_worker", f"the worker process died on this record: {cause}")
        outcome = _Outcome(failure=failure)
        self._journal.publish(
            pa.concat_tables([self._publishable(request, request.fields, outcome) for request in batch.items])
        )
        return BatchReport(0, len(batch.items), 0.0)

    def close(self) -> None:
        """Give up what was prefetched."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._loader.close()

    def _process(self, records: Sequence[Record]) -> list[_Outcome]:
        """Run the stage; where it fails on many records, on fewer, until each one that fails is alone."""
        begun = time.perf_counter()
        try:
            answers = self._task.stage.process(records)
        except RunError:
            raise
        except Exception as error:  # noqa: BLE001 - the worker's one broad catch: what it is, `pipeline.failures` says
            check_device(error, self._task.stage.name)
            if len(records) == 1:
                return [_Outcome(failure=failure_of(error), seconds=time.perf_counter() - begun)]
            is_memory, message = is_out_of_memory(error), f"{type(error).__name__}: {error}"
        else:
            self._check(records, answers)
            seconds = (time.perf_counter() - begun) / len(records)
            return [_Outcome(rows=tuple(rows), seconds=seconds) for rows in answers]
        free_memory(self._task.stage.name)
        size = (len(records) + 1) // 2 if is_memory else 1
        _log.info("%s: %s; trying again with %d of %d", self._task.stage.name, message, size, len(records))
        parts = [records[start : start + size] for start in range(0, len(records), size)]
        return [outcome for part in parts for outcome in self._process(part)]

    def _check(self, records: Sequence[Record], answers: Sequence[Sequence[Record]]) -> None:
        stage = self._task.stage
        if len(answers) != len(records):
            raise StageContractError(
                f"stage {stage.name} returned {len(answers)} lists of rows for {len(records)} records"
            )
        declared = {column.name for column in stage.produces}
        for row in (row for rows in answers for row in rows):
            if set(row) != declared:
                missing, unknown = sorted(declared - set(row)), sorted(set(row) - declared)
                raise StageContractError(
                    f"stage {stage.name} returned a row whose columns differ from `produces`: "
                    f"missing {missing}, not declared {unknown}"
                )

    def _publishable(self, request: Request, record: Record, outcome: _Outcome) -> pa.Table:
        """The rows of one record, with its files written. What does not fit its column fails the record."""
        facts = self._facts(request, outcome)
        if outcome.failure is None:
            try:
                rows = [{**row, **facts} for row in outcome.rows]
                if not rows:
                    raise BadOutputError(f"record {request.source_id}: the stage returned no row")
                return self._with_files(rows)
            except BadOutputError as error:
                outcome = _Outcome(failure=failure_of(error), seconds=outcome.seconds)
        return to_table([{**self._known(record), **self._facts(request, outcome)}], self._schema)

    def _facts(self, request: Request, outcome: _Outcome) -> dict[str, Any]:
        failure = outcome.failure or Failure(DONE, "", "")
        return {
            "status": failure.status,
            "error_code": failure.code,
            "error_message": failure.message,
            "source_id": request.source_id,
            "fingerprint": row_fingerprint(self._task.stage_fingerprint, request.fingerprint),
            "run_seconds": outcome.seconds,
            "code_version": self._task.code_version,
            "models": self._task.models,
        }

    def _known(self, record: Record) -> dict[str, Any]:
        """What a failed row can say: the light columns that its input record has too, such as ids and URIs."""
        known = {}
        for column in self._task.stage.produces:
            if column.kind in _LIGHT and column.name in record:
                try:
                    known[column.name] = encode_value(record[column.name], column, row_name="")
                except BadOutputError:
                    continue
        return known

    def _with_files(self, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
        """Put the contents of FILE columns into files; rows are checked first, so that no file is written in vain."""
        stage = self._task.stage
        file_columns = [column for column in stage.produces if column.kind is Kind.FILE]
        placed, contents = [], {}
        for row in rows:
            name = row[stage.id_column]
            if not isinstance(name, str) or not name or "/" in name:
                raise BadOutputError(f"column {stage.id_column}: expected a name without '/', got {name!r}")
            paths = {}
            for column in file_columns:
                if row[column.name] is None:
                    continue
                if not isinstance(row[column.name], bytes):
                    raise BadOutputError(f"row {name}, column {column.name}: expected the bytes of a file")
                # The fingerprint keeps a new version from changing the file that an older manifest still points to.
                path = f"{stage.name}/files/{column.name}/{name}-{row['fingerprint'][:8]}{column.suffix}"
                paths[column.name], contents[path] = path, row[column.name]
            placed.append({**row, **paths})
        table = to_table(placed, self._schema)
        for path, data in contents.items():
            self._task.run.write(path, data)
        return table


def _is_done(table: pa.Table) -> bool:
    return bool(table.column("status")[0].as_py() == DONE)
