"""The semantic code of a head: every appearance label as one vector with named fields.

Identity (head shape), expression and camera are not part of it; they are labels of their own.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from galatea.morphable.sampling import PHENOTYPES
from training.heads.assets import Assets
from training.heads.people import HeadSample

CODE_PHENOTYPES = ("gender", "age", "muscle", "weight", "african", "asian", "caucasian")


def code_fields(assets: Assets) -> dict[str, tuple[int, int]]:
    """Return the fields of the code: name -> (start, stop)."""
    sizes = {
        **dict.fromkeys(CODE_PHENOTYPES, 1),
        "skin_color": 3,
        "skin_texture": len(assets.skins),
        "skin_shine": 1,
        "hair_style": 1 + len(assets.hairs),
        "hair_color": 3,
        "brow_style": len(assets.brows),
        "brow_color": 3,
        "lash_style": len(assets.lashes),
        "eye_color": 3,
        "cloth_color": 3,
        "cloth_height": 1,
        "cloth_tilt": 1,
        "light_direction": 3,
        "light_color": 3,
        "sky_color": 3,
        "ground_color": 3,
    }
    fields, start = {}, 0
    for name, size in sizes.items():
        fields[name] = (start, start + size)
        start += size
    return fields


def encode(sample: HeadSample, assets: Assets) -> Float[np.ndarray, "z"]:
    """Return the code of a head; colours of things in sRGB, of light in linear RGB, one-hot for styles."""
    person, light = sample.person, sample.light
    values: dict[str, np.ndarray | float] = {
        **{name: float(person.phenotypes[PHENOTYPES.index(name)]) for name in CODE_PHENOTYPES},
        "skin_color": person.skin_color,
        "skin_texture": _one_hot(assets.skins, person.skin),
        "skin_shine": person.shine,
        "hair_style": _one_hot(["", *sorted(assets.hairs)], person.hair),
        "hair_color": person.hair_color,
        "brow_style": _one_hot(sorted(assets.brows), person.brow),
        "brow_color": person.brow_color,
        "lash_style": _one_hot(sorted(assets.lashes), person.lash),
        "eye_color": person.eye_color,
        "cloth_color": person.cloth_color,
        "cloth_height": 10 * (person.cloth_height + 0.32),
        "cloth_tilt": person.cloth_tilt,
        "light_direction": light.key_direction,
        "light_color": light.key_color,
        "sky_color": light.sky,
        "ground_color": light.ground,
    }
    fields = code_fields(assets)
    code = np.zeros(max(stop for _, stop in fields.values()), dtype=np.float32)
    for name, (start, stop) in fields.items():
        code[start:stop] = values[name]
    return code


def _one_hot(names: list[str], name: str) -> Float[np.ndarray, "n"]:
    row = np.zeros(len(names), dtype=np.float32)
    row[names.index(name)] = 1
    return row
