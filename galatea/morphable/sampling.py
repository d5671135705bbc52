"""Plausible people for the head model: phenotypes and local shape changes of Anny, drawn from a frozen generator.

The head model's identity space is the principal components of these draws, so the draws are part of its definition:
`numpy.random.RandomState` is used because its streams are frozen for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

PHENOTYPES = (
    "gender",
    "age",
    "muscle",
    "weight",
    "height",
    "proportions",
    "cupsize",
    "firmness",
    "african",
    "asian",
    "caucasian",
)
"""Anny's phenotype axes in its own order: gender 0 = male, age 1/3 = child, 2/3 = young adult, 1 = old."""
ADULT_AGE = 0.62
HEAD_WORDS = ("cheek", "chin", "ear-", "eyebrows", "eye-", "forehead", "head-", "mouth", "neck-", "nose")


@dataclass(frozen=True)
class People:
    """Draws of Anny's parameters: `phenotypes` (n, 11) in [0, 1], `local_changes` (n, len(labels)) in [-1, 1]."""

    phenotypes: Float[np.ndarray, "n 11"]
    local_changes: Float[np.ndarray, "n m"]


def head_changes(labels: list[str]) -> list[str]:
    """Return those of Anny's local changes that shape the head or the neck."""
    return [label for label in labels if any(word in label for word in HEAD_WORDS) and "forearm" not in label]


def sample_phenotypes(num: int, rng: np.random.RandomState) -> Float[np.ndarray, "n 11"]:
    """Draw phenotypes: 92% adults, two genders with spread, mixed ethnicities, build in the middle of its range."""
    uniform = rng.random_sample((num, 10))
    is_adult = uniform[:, 0] < 0.92
    age = np.where(is_adult, ADULT_AGE + (1 - ADULT_AGE) * uniform[:, 1], 0.42 + (ADULT_AGE - 0.42) * uniform[:, 1])
    distance = 0.3 * uniform[:, 3] ** 2
    gender = np.where(uniform[:, 2] < 0.5, distance, 1 - distance)
    origin = rng.standard_gamma(0.5, (num, 3)) + 1e-3
    origin /= origin.sum(1, keepdims=True)
    muscle, weight = 0.2 + 0.6 * uniform[:, 4], 0.15 + 0.75 * uniform[:, 5]
    height, proportions = 0.35 + 0.3 * uniform[:, 6], 0.2 + 0.6 * uniform[:, 7]
    middle = np.full(num, 0.5)
    return np.column_stack([gender, age, muscle, weight, height, proportions, middle, middle, origin])


def _spread(label: str) -> float:
    """Return the standard deviation of a local change: wide for the face, narrow for what bends or shifts the head."""
    if "trans-out" in label and not label.startswith(("l-", "r-")):
        return 0.06
    if label.startswith("head-angle"):
        return 0.03
    if label.startswith(("head-trans", "neck-trans", "head-age", "neck-double")):
        return 0.15
    if label.startswith(("head-", "neck-", "measure-neck", "forehead")) or label in ("mouth-trans-up", "nose-trans-up"):
        return 0.18
    return 0.24


def sample_local_changes(labels: list[str], num: int, rng: np.random.RandomState) -> Float[np.ndarray, "n m"]:
    """Draw local changes: normal, cut at +-1, both sides of the face mostly alike."""
    draws = rng.standard_normal((num, len(labels)))
    values = np.empty_like(draws)
    for column, label in enumerate(labels):
        if label.startswith("r-"):
            twin = labels.index("l-" + label[2:])
            values[:, column] = 0.95 * values[:, twin] + 0.3 * _spread(label) * draws[:, column]
        else:
            values[:, column] = _spread(label) * draws[:, column]
    return np.clip(values, -1.0, 1.0)


def sample_people(labels: list[str], num: int, seed: int) -> People:
    """Draw `num` people; the same seed gives the same people on every machine."""
    rng = np.random.RandomState(seed)
    return People(sample_phenotypes(num, rng), sample_local_changes(labels, num, rng))
