"""What a stage is: declared columns, resources, and a pure function over a batch of records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar

import torch

Record = Mapping[str, Any]
"""One row: column name -> value. Records are never modified; a stage returns new ones."""


class Kind(StrEnum):
    """What a column holds, and so how the pipeline stores it."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    BOOL = "bool"
    TENSOR = "tensor"
    """A float32 numpy array of the declared shape; stored in the manifest. -1 = any length (first axis only)."""
    BYTES = "bytes"
    """Small encoded data (WebP, PNG, JSON) that lives in the manifest itself."""
    FILE = "file"
    """Deliverables: `bytes` inside a stage; a file under `<run>/<stage>/files/`, named in the manifest."""


@dataclass(frozen=True)
class Column:
    """One declared column of a manifest."""

    name: str
    kind: Kind
    doc: str
    shape: tuple[int, ...] = ()
    suffix: str = ""
    """File name ending of FILE columns, with the dot."""


@dataclass(frozen=True)
class Resources:
    """What one actor of a stage takes; `num_gpus` counts only where the cluster has GPUs.

    Two actors share a GPU unless a stage or `executor.gpus_per_actor` says otherwise: one reads and writes while the
    other computes.
    """

    num_cpus: float = 1.0
    num_gpus: float = 0.5


@dataclass(frozen=True)
class ModelPart:
    """A model that took part in making a row: provenance that every row and clip carries."""

    name: str
    version: str
    sha256: str
    licence: str
    is_commercial_use_allowed: bool


class Stage(ABC):
    """A step of the pipeline.

    The constructor takes the stage's frozen configuration dataclass and must be cheap: no weights, no device.
    Stages raise `RecordError` to fail the record they were given and `RunError` to abort the run; they catch
    nothing else. When a batch raises, the caller retries its records one by one, so a stage need not know which
    record was at fault.
    """

    name: ClassVar[str]
    id_column: ClassVar[str]
    """The column that identifies an output row (`portrait_id`, `clip_id`, ...)."""
    source_id_column: ClassVar[str]
    """The column that identifies an input record; resume counts these."""
    requires: ClassVar[tuple[str, ...]]
    """Columns that every input record must have. FILE and BYTES columns arrive as `bytes`."""
    produces: ClassVar[tuple[Column, ...]]
    """Columns of the output rows, without the bookkeeping that the pipeline adds (status, errors, fingerprint)."""
    resources: ClassVar[Resources] = Resources()
    batch_size: int = 1

    @abstractmethod
    def models(self) -> tuple[ModelPart, ...]:
        """Name the models used, by hash, without loading them; part of the fingerprint of every row.

        Raises:
            WeightsError: if one is not installed.
        """

    def wants(self, ids: Mapping[str, str]) -> bool:
        """Whether the stage is to be asked for a record, by the ids of the record and of what it was made from.

        A record that is not wanted is no record of the stage: it has no row, also no failed one.
        """
        return True

    @abstractmethod
    def setup(self, device: torch.device) -> None:
        """Load the models once, in the process that will run `process`."""

    @abstractmethod
    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Turn every record into its output rows.

        Args:
            batch: records with at least the `requires` columns.

        Returns:
            One list for each record, in the same order: align gives one row per face, the other stages one row.

        Raises:
            RecordError: the batch holds a record that cannot be processed.
            RunError: nothing that follows could succeed.
        """
