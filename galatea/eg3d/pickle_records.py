"""What a pickle says, as data: names, calls that are not made, references, and a limit of steps."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from galatea.errors import WeightsError

MAX_OPCODES = 2_000_000
"""A full training snapshot of EG3D has about 60,000."""


@dataclass(frozen=True)
class Name:
    """A global that the pickle refers to; it is never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class Call:
    """A call or construction that the pickle asks for, not carried out; then its `state` and dictionary items."""

    function: Name
    arguments: tuple[Any, ...]
    state: Any = None
    items: dict[Hashable, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class PersistentId:
    """A reference that the pickle leaves to its reader."""

    value: Any


class Budget:
    """Counts steps over a file and the pickles inside it."""

    def __init__(self, steps: int = MAX_OPCODES) -> None:
        self.steps = steps

    def spend(self, steps: int = 1) -> None:
        """Take steps.

        Raises:
            WeightsError: if none are left.
        """
        self.steps -= steps
        if self.steps < 0:
            raise WeightsError("pickle: refused, it has far more instructions than a network's pickle")
