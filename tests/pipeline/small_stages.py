"""Small stages for tests of the machinery around stages: quick, exact, and with every kind of column."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from galatea.errors import InputError, NoFaceError, WeightsError
from pipeline.requests import Request, Requests
from stages.base import Column, Kind, ModelPart, Record, Stage


@dataclass(frozen=True)
class NumberConfig:
    factor: float = 2.0
    seconds: float = 0.0
    batch_size: int = 4
    kills_on: tuple[str, ...] = ()
    max_batch: int = 1000


class NumberStage(Stage):
    """Multiplies numbers; certain names make it fail in certain ways."""

    name: ClassVar[str] = "number"
    id_column: ClassVar[str] = "number_id"
    source_id_column: ClassVar[str] = "number_id"
    requires: ClassVar[tuple[str, ...]] = ("number_id", "value")
    produces: ClassVar[tuple[Column, ...]] = (
        Column("number_id", Kind.STRING, "name"),
        Column("product", Kind.FLOAT, "value times factor"),
        Column("count", Kind.INT, "how many"),
        Column("is_even", Kind.BOOL, "whether the value is even"),
        Column("grid", Kind.TENSOR, "two by three", (2, 3)),
        Column("track", Kind.TENSOR, "any number of pairs", (-1, 2)),
        Column("picture", Kind.BYTES, "bytes in the manifest"),
        Column("film", Kind.FILE, "bytes in a file", suffix=".bin"),
    )

    def __init__(self, config: NumberConfig) -> None:
        self.config = config
        self.batch_size = config.batch_size
        self._is_ready = False

    def models(self) -> tuple[ModelPart, ...]:
        return (ModelPart("numbers", "1", "0" * 64, "CC0-1.0", True),)

    def setup(self, device: torch.device) -> None:
        self._is_ready = True

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        if not self._is_ready:
            raise WeightsError("process was called before setup")
        if len(batch) > self.config.max_batch:
            raise torch.OutOfMemoryError(f"no memory for {len(batch)} records")
        return [[self._one(record)] for record in batch]

    def _one(self, record: Record) -> Record:
        name, value = record["number_id"], float(record["value"])
        time.sleep(self.config.seconds)
        if name in self.config.kills_on:
            os.kill(os.getpid(), signal.SIGKILL)
        if name.startswith("bad"):
            raise InputError(f"{name} is bad")
        if name.startswith("faceless"):
            raise NoFaceError(f"{name} has no face")
        if name.startswith("crash"):
            raise ZeroDivisionError("a programming error")
        if name.startswith("huge"):
            raise MemoryError("too large alone")
        product = value * self.config.factor
        return {
            "number_id": name,
            "product": product,
            "count": int(value),
            "is_even": int(value) % 2 == 0,
            "grid": np.zeros((9, 9)) if name.startswith("misshapen") else np.full((2, 3), product),
            "track": np.full((int(value) % 3, 2), product),
            "picture": name.encode() * 3,
            "film": f"film of {name}".encode(),
        }


class BreakingStage(NumberStage):
    """Computes on an accelerator that one record breaks: what follows in this process fails as well."""

    is_broken: ClassVar[bool] = False

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        if self.is_broken or any(record["number_id"].startswith("breaking") for record in batch):
            BreakingStage.is_broken = True
            raise torch.AcceleratorError("CUDA error: device-side assert triggered\nSearch for `cudaErrorAssert'")
        return super().process(batch)


class UnfitStage(NumberStage):
    """Cannot be set up: its weights are damaged."""

    def setup(self, device: torch.device) -> None:
        raise WeightsError(f"weights are damaged (in process {os.getpid()})")


class CopyStage(Stage):
    """Makes several rows of each number: what align does with the faces of a photo."""

    name: ClassVar[str] = "copy"
    id_column: ClassVar[str] = "copy_id"
    source_id_column: ClassVar[str] = "number_id"
    requires: ClassVar[tuple[str, ...]] = ("number_id", "product", "film", "grid")
    produces: ClassVar[tuple[Column, ...]] = (
        Column("copy_id", Kind.STRING, "number and copy"),
        Column("number_id", Kind.STRING, "name"),
        Column("total", Kind.FLOAT, "product plus index plus sum of the grid"),
        Column("film_length", Kind.INT, "bytes of the film"),
    )

    def __init__(self, config: NumberConfig) -> None:
        self.config = config
        self.batch_size = config.batch_size

    def models(self) -> tuple[ModelPart, ...]:
        return ()

    def setup(self, device: torch.device) -> None: ...

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        return [[self._row(record, index) for index in range(1 + len(record["number_id"]) % 2)] for record in batch]

    def _row(self, record: Record, index: int) -> Record:
        total = float(record["product"] + index + record["grid"].sum())
        name = record["number_id"]
        return {"copy_id": f"{name}_{index}", "number_id": name, "total": total, "film_length": len(record["film"])}


def number_records(names: Sequence[str]) -> list[Record]:
    return [{"number_id": name, "value": float(index)} for index, name in enumerate(names)]


def number_requests(names: Sequence[str], fingerprint: str = "") -> Requests:
    """Requests that carry their whole records."""
    return Requests([Request(record["number_id"], fingerprint, record) for record in number_records(names)])
