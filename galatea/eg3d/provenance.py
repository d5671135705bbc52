"""Where a generator's weights come from and what a user may do with them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GeneratorFacts:
    """Facts about a generator that rows, reports and capsules carry.

    Attributes:
        name: short name, for example "builtin" or the stem of the imported file.
        kind: "plain" (EG3D) or "anchored" (planes painted through a head mesh).
        version: version of the weights, free text.
        sha256: hash of the weight file; empty for weights that were never saved.
        licence: licence of the weights.
        is_commercial_use_allowed: whether the licence allows commercial use.
        source: where the weights come from (training run, imported file).
        source_sha256: hash of the imported file, empty if there is none.
        created: ISO date of training or import.
        num_parameters: number of trained values.
    """

    name: str
    kind: str
    version: str = ""
    sha256: str = ""
    licence: str = ""
    is_commercial_use_allowed: bool = False
    source: str = ""
    source_sha256: str = ""
    created: str = ""
    num_parameters: int = 0
