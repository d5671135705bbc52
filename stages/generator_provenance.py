"""Names the generator that a stage uses, by hash, without loading it.

Apart from the other models: stages that use no generator do not depend on its code.
"""

from __future__ import annotations

from galatea.eg3d.checkpoint import read_facts
from stages.base import ModelPart


def generator_part(name_or_path: str) -> ModelPart:
    """Return the facts of a generator checkpoint.

    Raises:
        WeightsError: if it is missing or damaged.
    """
    facts = read_facts(name_or_path)
    return ModelPart(facts.name, facts.version, facts.sha256, facts.licence, facts.is_commercial_use_allowed)
