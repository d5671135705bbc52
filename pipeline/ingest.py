"""Ingest: from what the user named to one row for each photo, and one for each file that is not a usable photo.

The identity of a photo is the hash of its bytes. Files that were looked at before are told by their stamp (ETag, or
time and size) and not read again; copies of a photo are one row, whichever name they have.
"""

from __future__ import annotations

import io
import json
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from PIL import Image, UnidentifiedImageError

from galatea.errors import GalateaError, InputError, StorageError
from galatea.pixel_limit import pixels_allowed
from pipeline.compaction import publish_manifest, read_statistics, requests_digest
from pipeline.executor import StopSignal, worker_name
from pipeline.fingerprint import code_hash, digest
from pipeline.inputs import FoundFile, find_photos
from pipeline.journal import JournalLimits, JournalWriter, shard_paths
from pipeline.manifest import DONE, REJECTED, build_schema, manifest_path, read_table, to_rows, to_table
from pipeline.outage import OutageWatch, check_any_readable
from pipeline.photo_id import photo_id_of
from pipeline.pruning import refuse_lost_photos
from pipeline.run_stage import OnProgress, StageSummary, Tally
from pipeline.settings import StorageConfig
from pipeline.storage import Store
from pipeline.storage_errors import AccessError, MissingFileError, UnreadableFileError
from pipeline.worker_task import BatchReport
from stages.base import Column, Kind

STAGE = "ingest"
COLUMNS = (
    Column("photo_id", Kind.STRING, "first 16 hex digits of the SHA-256 of the bytes"),
    Column("uri", Kind.STRING, "where the photo is (the first of its copies)"),
    Column("file_name", Kind.STRING, "last part of the URI"),
    Column("width", Kind.INT, "pixels, as people see the photo (EXIF orientation applied)"),
    Column("height", Kind.INT, "pixels, as people see the photo (EXIF orientation applied)"),
    Column("num_bytes", Kind.INT, "of the file"),
    Column("format", Kind.STRING, "of the file: JPEG, PNG, ..."),
    Column("num_copies", Kind.INT, "files with these very bytes"),
    Column("copies", Kind.STRING, "JSON list of the URI and stamp of each of them"),
)
SCHEMA = build_schema(STAGE, "photo_id", COLUMNS)
_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
_PASSING_ERRORS = {kind.code for kind in (StorageError, MissingFileError, AccessError, UnreadableFileError)}
"""Not of the photo but of its storage: such a file is looked at again in the next run, though its stamp is the same."""
_BATCH = 32
_NUM_THREADS = 16
_AT_ONCE = 1024
"""Of what takes much memory for each file, and there may be millions."""
_ORIENTATION = 0x0112
_TURNED_ORIENTATIONS = {5, 6, 7, 8}


class EmptyFileError(InputError):
    """The file has no bytes."""

    code = "empty_file"


class NotAnImageError(InputError):
    """The bytes are not those of an image that is read here."""

    code = "not_an_image"


class FileNameError(InputError):
    """The name of the file is not UTF-8."""

    code = "bad_file_name"


class TooLargeError(InputError):
    """More bytes or pixels than is allowed."""

    code = "too_large"


@dataclass(frozen=True, slots=True)
class _Task:
    """A file to look at."""

    position: int
    """Among all files."""
    file: FoundFile
    key: tuple[str, str]
    """URI and stamp."""


def ingest(
    inputs: Sequence[str], run: Store, config: StorageConfig, progress: OnProgress | None = None
) -> StageSummary:
    """Bring the ingest manifest in line with the inputs.

    Args:
        inputs: folders, globs, bucket prefixes, files, or CSV/Parquet lists of URIs.
        run: the run folder.
        config: limits and storage options.
        progress: called in this thread after every few files.

    Returns:
        Counts and times; `status` tells done from rejected.

    Raises:
        ConfigError: an input does not exist, there is no photo at all, or results of photos that are not asked for any
            more would be deleted.
        StorageError: the run folder cannot be written.
    """
    begun = time.monotonic()
    way = digest(code_hash(__name__), str(config.max_photo_bytes), str(config.max_photo_pixels))
    stop = StopSignal()
    with stop.listening(), ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="ingest") as pool:
        files = _all_stamped(pool, find_photos(inputs, config.options, run.url), config, stop)
        keys = [(file.uri, digest(way, file.stamp)) for file in files]
        requested = requests_digest(keys)
        shards = shard_paths(run, STAGE)
        statistics = read_statistics(run, STAGE)
        is_settled = not _PASSING_ERRORS & set(statistics.get("errors", {}))
        is_whole = not shards and run.exists(manifest_path(STAGE))
        is_current = is_whole and is_settled and statistics.get("requests") == requested
        known = {} if is_current else _known_rows(run, shards)
        pairs = () if is_current else enumerate(zip(files, keys, strict=True))
        left = [_Task(position, file, key) for position, (file, key) in pairs if key not in known]
        tally = Tally(STAGE, len(files), len(files) - len(left), begun, progress)
        for row, key in _examined(pool, left, config, stop, run, tally):
            known[key] = row
    if not is_current:
        rows = _merged(known[key] for key in keys)
        check_any_readable(rows)
        if not config.prune:
            refuse_lost_photos(run, rows)
        tables = (to_table(rows[start : start + _AT_ONCE], SCHEMA) for start in range(0, len(rows), _AT_ONCE))
        statistics = publish_manifest(run, STAGE, SCHEMA, tables, requested, shard_paths(run, STAGE))
    stop.check()
    return tally.summary(way, statistics)


def examine(file: FoundFile, config: StorageConfig) -> dict[str, Any]:
    """Read a file and describe it as a row; a file that is not a usable photo is a row that says why."""
    row: dict[str, Any] = {
        "uri": file.uri,
        "file_name": file.uri.rpartition("/")[2],
        "num_bytes": file.num_bytes,
        "num_copies": 1,
        "source_id": file.uri,
        "code_version": code_hash(__name__),
        "models": "[]",
    }
    begun = time.perf_counter()
    try:
        row |= _described(file, config)
    except (InputError, StorageError) as error:
        row |= _rejection(file, error)
    return row | {"run_seconds": time.perf_counter() - begun}


def _described(file: FoundFile, config: StorageConfig) -> dict[str, Any]:
    if file.is_name_damaged:
        raise FileNameError(f"{file.uri}: the name is not UTF-8: rename the file, and run again")
    if file.num_bytes is not None and file.num_bytes > config.max_photo_bytes:
        raise TooLargeError(
            f"{file.uri} has {file.num_bytes} bytes, expected at most {config.max_photo_bytes} "
            "(storage.max_photo_bytes)"
        )
    data = Store(file.uri, config.options).read("")
    if not data:
        raise EmptyFileError(f"{file.uri} is empty (0 bytes): copy it again, or leave it out")
    header = read_header(data, file.uri, config.max_photo_pixels)
    photo_id = photo_id_of(data)
    facts = {"status": DONE, "error_code": "", "error_message": "", "fingerprint": digest(STAGE, photo_id)}
    return {"photo_id": photo_id, "num_bytes": len(data), **header, **facts}


def _rejection(file: FoundFile, error: GalateaError) -> dict[str, Any]:
    fingerprint = digest(STAGE, file.uri, error.code)
    return {"status": REJECTED, "error_code": error.code, "error_message": str(error), "fingerprint": fingerprint}


def read_header(data: bytes, uri: str, max_pixels: int) -> dict[str, Any]:
    """Width, height and format of an image from its header; pixels are not decoded.

    Raises:
        NotAnImageError: it is not an image of a known format, or its header is damaged.
        TooLargeError: it has more pixels than allowed.
    """
    try:
        with warnings.catch_warnings(), pixels_allowed(max_pixels):
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
                (width, height), name = image.size, image.format
                is_turned = _exif(image).get(_ORIENTATION, 1) in _TURNED_ORIENTATIONS
    except Image.DecompressionBombError as error:
        raise TooLargeError(
            f"{uri} is too large: expected at most {max_pixels} pixels (storage.max_photo_pixels; {error})"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise NotAnImageError(
            f"{uri} is not an image, or a damaged one: expected {', '.join(_FORMATS)}, "
            f"got {len(data)} bytes that begin with {data[:12]!r}"
        ) from error
    if width * height > max_pixels:
        raise TooLargeError(
            f"{uri} has {width}x{height} pixels, expected at most {max_pixels} (storage.max_photo_pixels)"
        )
    return {"width": height if is_turned else width, "height": width if is_turned else height, "format": name}


def _exif(image: Image.Image) -> Image.Exif:
    if image.format != "PNG":
        return image.getexif()
    # Pillow would decode the pixels of a PNG to look for EXIF data behind them.
    exif = Image.Exif()
    exif.load(image.info.get("exif", b""))
    return exif


def _all_stamped(
    pool: ThreadPoolExecutor, files: Sequence[FoundFile], config: StorageConfig, stop: StopSignal
) -> list[FoundFile]:
    """The files with size and stamp; one that cannot be looked up is told so when it is read."""
    stamped, watch = list(files), OutageWatch()
    unknown = [position for position, file in enumerate(files) if not file.stamp and not file.is_name_damaged]
    for start in range(0, len(unknown), _AT_ONCE):
        together = unknown[start : start + _AT_ONCE]
        found = pool.map(lambda position: _stamped(files[position], config), together)
        for position, (file, error) in zip(together, found, strict=True):
            stop.check()
            watch.note(position, error.code if error else "", str(error))
            stamped[position] = file
    return stamped


def _stamped(file: FoundFile, config: StorageConfig) -> tuple[FoundFile, StorageError | None]:
    try:
        entry = Store(file.uri, config.options).entry("")
    except StorageError as error:
        return FoundFile(file.uri, None, error.code), error
    return FoundFile(file.uri, entry.num_bytes, entry.stamp), None


def _examined(
    pool: ThreadPoolExecutor,
    left: Sequence[_Task],
    config: StorageConfig,
    stop: StopSignal,
    run: Store,
    tally: Tally,
) -> Iterator[tuple[dict[str, Any], tuple[str, str]]]:
    """Rows of files that were not looked at before, published batch by batch; the next batch is read meanwhile."""
    watch = OutageWatch()
    journal = JournalWriter(run, STAGE, worker_name("ingest"), SCHEMA, JournalLimits())
    batches = [left[start : start + _BATCH] for start in range(0, len(left), _BATCH)]
    following = _begun(pool, batches[0], config) if batches else []
    for number, batch in enumerate(batches):
        stop.check()
        current = following
        following = _begun(pool, batches[number + 1], config) if number + 1 < len(batches) else []
        rows = []
        for future, task in zip(current, batch, strict=True):
            row = future.result() | {"copies": json.dumps([list(task.key)])}
            watch.note(task.position, row["error_code"], row["error_message"])
            rows.append(row)
        journal.publish(to_table(rows, SCHEMA))
        num_done = sum(row["status"] == DONE for row in rows)
        tally.add(BatchReport(num_done, len(rows) - num_done, sum(row["run_seconds"] for row in rows)))
        yield from zip(rows, (task.key for task in batch), strict=True)


def _begun(pool: ThreadPoolExecutor, batch: Sequence[_Task], config: StorageConfig) -> list[Future[dict[str, Any]]]:
    return [pool.submit(examine, task.file, config) for task in batch]


def _known_rows(run: Store, shards: Sequence[str]) -> dict[tuple[str, str], dict[str, Any]]:
    """Rows of files that an earlier run could read, by (uri, stamp); a row for each copy."""
    paths = [*([manifest_path(STAGE)] if run.exists(manifest_path(STAGE)) else []), *shards]
    tables = (read_table(run, path) for path in paths)
    blocks = (block for table in tables for block in table.to_batches(max_chunksize=_AT_ONCE))
    known = {}
    for row in (row for block in blocks for row in to_rows(pa.Table.from_batches([block]))):
        if row["error_code"] in _PASSING_ERRORS:
            continue
        for uri, stamp in json.loads(row["copies"]):
            names = {"uri": uri, "source_id": uri, "file_name": uri.rpartition("/")[2]}
            known[(uri, stamp)] = row | names | {"num_copies": 1, "copies": json.dumps([[uri, stamp]])}
    return known


def _merged(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row for each photo, at the place and with the name of the first of its copies."""
    copies: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        copies[row.get("photo_id") or row["uri"]].append(row)
    return [_as_one(found) for found in copies.values()]


def _as_one(copies: Sequence[dict[str, Any]]) -> dict[str, Any]:
    if len(copies) == 1:
        return copies[0]
    names = [name for row in copies for name in json.loads(row["copies"])]
    return copies[0] | {"num_copies": len(names), "copies": json.dumps(names)}
