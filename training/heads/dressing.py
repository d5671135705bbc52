"""Draws what a head wears and what is in front of it, from the probabilities of a `Look`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from training.heads.extras import BARS, CUPS, HANDS, Beard, Extras, Glasses, Occluder
from training.heads.people import FRINGES, HAIR_COLORS, HeadSample, Person
from training.heads.settings import Look

IRIS_SCALES = tuple(round(0.72 + 0.03 * step, 2) for step in range(8))
"""Iris sizes relative to the base texture's, which are those of a doll: real ones span 0.41 of the eye's width."""


def dressed(sample: HeadSample, person: int, expression: int, look: Look, styles: Sequence[str]) -> HeadSample:
    """Return a head with the extras that the look gives it; the same numbers give the same ones.

    Args:
        sample: a head as it is drawn for the generator.
        person: its number.
        expression: the number of its expression.
        look: probabilities.
        styles: names of all hair styles.
    """
    extras = sample_extras(person, expression, sample.person, look)
    owner = sample.person
    rng = np.random.default_rng([person, 6])
    if owner.hair in FRINGES and rng.random() < look.open_eyes:
        kin = [name for name in styles if name.startswith("short") == owner.hair.startswith("short")]
        free = sorted(name for name in kin if name not in FRINGES and not name.startswith("afro"))
        owner = replace(owner, hair=str(rng.choice(free))) if free else owner
    if extras.iris_scale != 1.0:
        # The base renderer's blue and green irises are brighter than those of photos.
        grey = owner.eye_color.mean()
        owner = replace(owner, eye_color=0.8 * (0.6 * owner.eye_color + 0.4 * grey))
    return replace(sample, person=owner, extras=extras)


def sample_extras(seed: int, expression: int, person: Person, look: Look) -> Extras:
    """Draw glasses, beard and irises of a person, and the occluder of one of the person's expressions."""
    rng = np.random.default_rng([seed, 3])
    chances = rng.random(3)
    glasses, beard = _sample_glasses(rng, look), _sample_beard(rng, person)
    iris = float(IRIS_SCALES[rng.integers(len(IRIS_SCALES))])
    is_man = person.phenotypes[0] < 0.5 and person.phenotypes[1] > 0.64
    momentary = np.random.default_rng([seed, 4, expression])
    has_occluder = momentary.random() < look.occluder
    return Extras(
        glasses=glasses if chances[0] < look.glasses else None,
        beard=beard if is_man and chances[1] < look.beard else None,
        occluder=_sample_occluder(momentary, person) if has_occluder else None,
        iris_scale=iris if chances[2] < look.iris else 1.0,
    )


def _sample_glasses(rng: np.random.Generator, look: Look) -> Glasses:
    is_dark = rng.random() < look.sunglasses
    metal = rng.choice([0.12, 0.35, 0.6]) * np.array([1.0, 0.95, 0.85])
    plastic = rng.choice([0.03, 0.06, 0.3]) * rng.uniform(0.5, 1.4, 3)
    thickness = rng.uniform(0.002, 0.0035) if rng.random() < 0.5 else rng.uniform(0.004, 0.0075)
    tint = rng.uniform(0.02, 0.1, 3) if is_dark else np.array([0.2, 0.22, 0.23])
    return Glasses(
        half_width=rng.uniform(0.058, 0.07) + 0.004 * is_dark,
        half_height=rng.uniform(0.036, 0.056) + 0.004 * is_dark,
        roundness=float(rng.choice([2.0, 2.6, 4.0])),
        thickness=thickness,
        color=np.clip(metal if thickness < 0.004 else plastic, 0.02, 0.9),
        lens_color=tint,
        lens_opacity=rng.uniform(0.65, 0.95) if is_dark else rng.uniform(0.03, 0.1),
        drop=rng.uniform(0.004, 0.018),
    )


def _sample_beard(rng: np.random.Generator, person: Person) -> Beard:
    kind = rng.random()
    moustache, chin, cheeks = (rng.uniform(0.75, 1.0, 3)).tolist()
    if kind < 0.4:
        density, length = rng.uniform(0.15, 0.5), 0.0
    elif kind < 0.75:
        density, length = rng.uniform(0.65, 1.0), rng.choice([0.006, 0.012, 0.025]) * rng.uniform(0.7, 1.3)
    else:
        density, length, cheeks = rng.uniform(0.6, 1.0), rng.uniform(0.004, 0.014), 0.0
        moustache, chin = (1.0, 0.0) if kind > 0.9 else (moustache, chin)
    is_grey = person.phenotypes[1] > 0.88 and rng.random() < 0.6
    density *= 0.5 if is_grey and length == 0 else 1.0
    natural = HAIR_COLORS[8] if is_grey else person.hair_color
    color = np.clip(natural * rng.uniform(0.6, 1.0) * rng.normal(1, 0.03, 3), 0.02, 0.7)
    return Beard(moustache, chin, cheeks, density, float(length), color)


def _sample_occluder(rng: np.random.Generator, person: Person) -> Occluder:
    kind = str(rng.choice([HANDS, HANDS, CUPS, BARS]))
    color = rng.uniform(0.05, 0.9, 3)
    if kind == HANDS:
        color = np.clip(person.skin_color * rng.uniform(0.85, 1.1), 0.02, 0.98)
    x = rng.normal(0, 0.11)
    y = rng.uniform(-0.16, 0.06) if kind != BARS else rng.uniform(-0.1, 0.2)
    return Occluder(kind, np.array([x, y, rng.uniform(0.05, 0.12)]), rng.normal(0, 35), rng.uniform(0.85, 1.15), color)
