"""Synthetic data sets: people to draw become requests of one stage, and its manifest may be packed into tar shards."""

from __future__ import annotations

import math
from dataclasses import dataclass

from galatea.errors import ConfigError
from pipeline.config import Config
from pipeline.fingerprint import digest
from pipeline.requests import Request, Requests
from pipeline.run_lock import locked
from pipeline.run_stage import OnProgress, StageSummary, run_stage
from pipeline.storage import Store
from pipeline.webdataset import ShardIndex, pack
from training.heads.settings import PEOPLE_PER_SEED, HeadsConfig
from training.heads.synthesize import SynthesizeStage, person_record

FORMATS = ("parquet", "webdataset")
CONFIG_SECTION = "heads"


@dataclass(frozen=True)
class HeadsOrder:
    """A data set of synthetic heads."""

    count: int
    """Images."""
    out: Store
    heads: HeadsConfig
    config: Config
    """Of executor and storage."""
    form: str = "parquet"
    """`parquet`: manifest and image files; `webdataset`: tar shards too."""

    def __post_init__(self) -> None:
        most = PEOPLE_PER_SEED * self.heads.images_per_person
        if not 1 <= self.count <= most:
            raise ConfigError(f"count: expected 1 to {most} images, got {self.count}")
        if self.form not in FORMATS:
            raise ConfigError(f"format: expected {' or '.join(FORMATS)}, got {self.form!r}")


@dataclass(frozen=True)
class HeadsOutcome:
    """What came of it."""

    summary: StageSummary
    shards: ShardIndex | None


def synthesize_heads(order: HeadsOrder, progress: OnProgress | None = None) -> HeadsOutcome:
    """Draw what is not there yet, then pack it if that was asked for. Running it again resumes.

    Raises:
        ConfigError: another process writes the data set.
        WeightsError: the assets are missing; found before anything expensive.
        RunError: the run was aborted; what is finished is kept.
        RunInterruptedError: it was asked to stop; what is finished is kept.
    """
    stage = SynthesizeStage(order.heads)
    stage.models()
    order.out.check_writable()
    with locked(order.out):
        requests = heads_requests(order.count, order.heads)
        summary = run_stage(stage, requests, order.out, order.config.executor, progress)
        shards = pack(order.out, stage.name, "heads") if order.form == "webdataset" else None
    return HeadsOutcome(summary, shards)


def heads_requests(count: int, heads: HeadsConfig) -> Requests:
    """Requests for `count` images; the last person may have fewer than the others."""
    each = heads.images_per_person
    items = []
    for index in range(math.ceil(count / each)):
        record = person_record(heads, index, min(each, count - index * each))
        fingerprint = digest(record["person_id"], str(record["num_images"]))
        items.append(Request(record["person_id"], fingerprint, record))
    return Requests(items)
