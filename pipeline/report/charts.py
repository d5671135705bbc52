"""Distributions as inline SVG: histograms that need no script and can be read aloud."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pipeline.aggregates import Values, finite

WIDTH, HEIGHT = 320, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 10, 22
_MAX_BARS = 24


@dataclass(frozen=True)
class Metric:
    """How a figure is called, and how it reads."""

    column: str
    title: str
    doc: str
    unit: str = ""
    digits: int = 2


@dataclass(frozen=True)
class Bar:
    """One bar, in SVG units, with what it stands for."""

    x: float
    y: float
    width: float
    height: float
    label: str


@dataclass(frozen=True)
class Tick:
    """A number on the horizontal axis."""

    x: float
    text: str


@dataclass(frozen=True)
class Histogram:
    """A chart, laid out; the template draws it."""

    metric: Metric
    count: int
    median: str
    low: str
    high: str
    median_x: float
    bars: tuple[Bar, ...]
    ticks: tuple[Tick, ...]

    @property
    def summary(self) -> str:
        """The chart in one sentence, for those who do not see it."""
        middle = f"median {self.median}, nine of ten between {self.low} and {self.high}"
        return f"Histogram of {self.metric.title.lower()} over {self.count} values: {middle}."


def histogram(metric: Metric, values: Values) -> Histogram | None:
    """Lay out the histogram of a metric; missing and non-finite values are left out.

    Returns:
        None where no value is left.
    """
    numbers = finite(values)
    if not len(numbers):
        return None
    ticks = _round_ticks(float(numbers.min()), float(numbers.max()))
    start, stop = ticks[0], ticks[-1]
    num_bars = int(np.clip(math.ceil(math.sqrt(len(numbers))) * 2, 8, _MAX_BARS))
    counts, edges = np.histogram(numbers, bins=num_bars, range=(start, stop))
    width = WIDTH - _LEFT - _RIGHT

    def place(value: float) -> float:
        return round(_LEFT + (value - start) / (stop - start) * width, 2)

    bars = tuple(
        _bar(metric, place(low), place(high), int(count), int(counts.max()), (low, high))
        for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    )
    low, median, high = np.quantile(numbers, (0.05, 0.5, 0.95))
    return Histogram(
        metric=metric,
        count=len(numbers),
        median=_text(metric, median),
        low=_text(metric, low),
        high=_text(metric, high),
        median_x=place(float(median)),
        bars=bars,
        ticks=tuple(Tick(place(value), f"{value:g}") for value in ticks),
    )


def _bar(metric: Metric, left: float, right: float, count: int, most: int, span: tuple[float, float]) -> Bar:
    height = max(2.0, count / most * (HEIGHT - _TOP - _BOTTOM))
    label = f"{_text(metric, span[0])} to {_text(metric, span[1])}: {count}"
    return Bar(
        left + 0.75, round(HEIGHT - _BOTTOM - height, 2), max(round(right - left - 1.5, 2), 1), round(height, 2), label
    )


def _round_ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers that enclose the values."""
    if high - low < 1e-9 * max(1.0, abs(low)):
        half = abs(low) * 0.1 or 0.5
        low, high = low - half, high + half
    rough = (high - low) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= rough)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _text(metric: Metric, value: float) -> str:
    separator = "" if metric.unit in ("", "°") else " "
    return f"{value:.{metric.digits}f}{separator}{metric.unit}"
