from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

import pytest

from galatea.errors import ConfigError
from pipeline.typed_values import build, flatten, nearest_key, plain


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Inner:
    size: int = 3
    shape: tuple[int, float] = (1, 2.0)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigError(f"size must not be negative, got {self.size}")


@dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    names: tuple[str, ...] = ("a",)
    mode: Literal["fast", "slow"] = "fast"
    colour: Colour = Colour.RED
    seed: int | None = None
    options: dict[str, float] = field(default_factory=dict)
    is_on: bool = False


def test_plain_values_make_the_record_they_came_from() -> None:
    record = Outer(Inner(5, (2, 0.5)), ("x", "y"), "slow", Colour.BLUE, 7, {"a": 1.0}, True)
    assert build(Outer, plain(record)) == record
    assert flatten(plain(record))["inner.size"] == 5


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"inner": {"size": "big"}}, ("inner.size", "whole number", "'big'")),
        ({"inner": {"size": True}}, ("inner.size", "whole number")),
        ({"inner": {"size": -1}}, ("inner", "negative")),
        ({"inner": {"shape": [1, 2, 3]}}, ("inner.shape", "2 values")),
        ({"inner": 3}, ("inner", "group")),
        ({"names": "x"}, ("names", "list")),
        ({"names": ["x", None]}, ("names[1]", "text")),
        ({"mode": "fsat"}, ("mode", "fast", "Did you mean 'fast'")),
        ({"colour": "green"}, ("colour", "red", "blue")),
        ({"seed": 1.5}, ("seed", "1.5")),
        ({"options": {"a": "x"}}, ("options.a", "number")),
        ({"is_on": 1}, ("is_on", "true or false")),
        ({"inner": {"sizee": 1}}, ("inner.sizee", "inner.size")),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(values: dict[str, object], words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, values)
    for word in words:
        assert word in str(caught.value)


def test_the_nearest_key_is_found_by_its_whole_name_or_its_last_part() -> None:
    keys = ["animate.fps", "executor.num_actors", "drive.amplitude"]
    assert nearest_key("animte.fps", keys) == "animate.fps"
    assert nearest_key("num_actor", keys) == "executor.num_actors"
    assert nearest_key("zzzz", keys) is None
