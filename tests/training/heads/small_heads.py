"""A synthesise stage that fails where a test wants it to."""

from __future__ import annotations

from collections.abc import Sequence

from galatea.errors import InputError
from stages.base import Record
from training.heads.synthesize import SynthesizeStage


class StumblingStage(SynthesizeStage):
    """Cannot draw the second person of a run."""

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        if any(record["person"] % 1_000_000 == 1 for record in batch):
            raise InputError("this person cannot be drawn")
        return super().process(batch)
