"""One synthetic head, frozen: who it is, how it looks, what it does, how it is lit and seen; all of it from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from galatea.cameras import PIVOT, orbit, pack_label, unpack_label
from galatea.morphable.head import HeadModel
from galatea.morphable.sampling import PHENOTYPES, sample_phenotypes
from training.heads.assets import Assets
from training.heads.expressions import sample_expression
from training.heads.extras import Extras
from training.heads.folds import Creases, sample_creases

SKIN_TONES = (
    np.array(
        [
            [238, 206, 186],
            [228, 188, 162],
            [214, 170, 141],
            [192, 146, 114],
            [160, 115, 84],
            [124, 86, 62],
            [92, 64, 48],
            [66, 47, 37],
        ]
    )
    / 255.0
)
"""Average sRGB colour of faces from light to dark, as photos show them in neutral light."""
HAIR_COLORS = (
    np.array(
        [
            [14, 12, 12],
            [30, 22, 18],
            [54, 36, 25],
            [88, 58, 36],
            [120, 84, 50],
            [150, 116, 78],
            [184, 154, 112],
            [104, 50, 26],
            [118, 115, 112],
            [172, 170, 167],
        ]
    )
    / 255.0
)
"""Black, dark browns, browns, dark blond, blond, light blond, red, grey, white."""
EYE_COLORS = (
    np.array(
        [
            [38, 22, 13],
            [66, 40, 22],
            [98, 66, 36],
            [98, 84, 50],
            [84, 94, 70],
            [88, 102, 112],
            [84, 112, 136],
            [108, 126, 134],
        ]
    )
    / 255.0
)
"""Dark brown, brown, light brown, hazel, green, grey, blue, light blue."""

FRINGES = ("bob01", "bob02", "short03")
"""Styles that hang over one eye: rarer, so that most images show both."""


@dataclass(frozen=True)
class Light:
    """A soft key light and the light of the surroundings; linear RGB, direction towards the light."""

    key_direction: Float[np.ndarray, "3"]
    key_color: Float[np.ndarray, "3"]
    sky: Float[np.ndarray, "3"]
    ground: Float[np.ndarray, "3"]


@dataclass(frozen=True)
class MouthSeat:
    """How much lower than MakeHuman's a person's teeth and tongue sit, world units (0.0027 are 1 mm)."""

    upper_teeth: float
    lower_teeth: float
    tongue: float


@dataclass(frozen=True)
class Person:
    """What stays the same over the images of one identity. Colours are sRGB in [0, 1]."""

    identity: Float[np.ndarray, "k"]
    phenotypes: Float[np.ndarray, "11"]
    skin: str
    skin_color: Float[np.ndarray, "3"]
    shine: float
    hair: str
    hair_color: Float[np.ndarray, "3"]
    brow: str
    brow_color: Float[np.ndarray, "3"]
    lash: str
    eye_color: Float[np.ndarray, "3"]
    cloth_color: Float[np.ndarray, "3"]
    cloth_height: float
    cloth_tilt: float
    mouth: MouthSeat
    creases: Creases


@dataclass(frozen=True)
class HeadSample:
    """Everything that one expressed, lit head is made from, and the cameras that look at it."""

    person: Person
    expression: Float[np.ndarray, "52"]
    light: Light
    cameras: Float[np.ndarray, "n 25"]
    seed: int
    extras: Extras = field(default_factory=Extras)


def sample_person(seed: int, model: HeadModel, assets: Assets) -> Person:
    """Draw a person; the same seed gives the same person."""
    rng = np.random.default_rng([seed, 1])
    phenotypes = sample_phenotypes(1, np.random.RandomState(rng.integers(2**31)))[0]
    named = dict(zip(PHENOTYPES, phenotypes, strict=True))
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    identity = model.sample_identity(torch.from_numpy(phenotypes)[None], generator, 0.95)[0].numpy()
    tone = _skin_tone(named, rng)
    hair_color = _hair_color(named, tone, rng)
    return Person(
        identity=identity.astype(np.float32),
        phenotypes=phenotypes.astype(np.float32),
        skin=_choose_skin(named, tone, assets.skins, rng),
        skin_color=_skin_color(tone, rng),
        shine=float(rng.uniform(0.4, 1.8)),
        hair=_choose_hair(named, assets, rng),
        hair_color=hair_color,
        brow=str(rng.choice(sorted(assets.brows))),
        brow_color=np.clip(hair_color * rng.uniform(0.4, 0.95), 0.02, 0.55),
        lash=str(rng.choice(sorted(assets.lashes))),
        eye_color=_eye_color(tone, rng),
        cloth_color=_cloth_color(rng),
        cloth_height=float(rng.uniform(-0.365, -0.28)),
        cloth_tilt=float(rng.uniform(0.15, 0.5)),
        mouth=_mouth_seat(rng),
        creases=sample_creases(named["age"], np.random.default_rng([seed, 11])),
    )


def _mouth_seat(rng: np.random.Generator) -> MouthSeat:
    """Draw how far teeth show: MakeHuman's upper teeth end at the lip, where people show 0 to 5 mm of theirs."""
    return MouthSeat(
        upper_teeth=float(np.clip(rng.normal(0.013, 0.005), 0.0, 0.026)),
        lower_teeth=float(np.clip(rng.normal(0.016, 0.005), 0.004, 0.03)),
        tongue=float(rng.uniform(0.02, 0.045)),
    )


def _skin_tone(named: dict[str, float], rng: np.random.Generator) -> float:
    """Return 0 (light) .. 1 (dark), by origin with a wide spread."""
    tone = 0.14 * named["caucasian"] + 0.27 * named["asian"] + 0.82 * named["african"]
    return float(np.clip(tone + rng.normal(0, 0.1), 0, 0.93))


def _skin_color(tone: float, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Return the average face colour of a tone, a little warmer or cooler."""
    steps = np.linspace(0, 1, len(SKIN_TONES))
    color = np.array([np.interp(tone, steps, SKIN_TONES[:, channel]) for channel in range(3)])
    warm = rng.normal(0, 0.02)
    return np.asarray(np.clip(color * np.array([1 + warm, 1.0, 1 - 1.5 * warm]) * rng.normal(1, 0.03), 0.02, 0.98))


def _choose_skin(named: dict[str, float], tone: float, skins: list[str], rng: np.random.Generator) -> str:
    """Choose a skin whose name says the right age, gender and shade."""
    age = "old" if named["age"] > 0.9 else "middleage" if named["age"] > 0.78 else "young"
    gender = "_female" if named["gender"] > 0.5 else "_male"
    shade = "darkskinned" if tone > 0.6 else "lightskinned"
    fitting = [name for name in skins if name.startswith(age) and gender in name and shade in name]
    return str(rng.choice(fitting or skins))


def _choose_hair(named: dict[str, float], assets: Assets, rng: np.random.Generator) -> str:
    """Choose a hair style, or none; long ones mostly for women, bald heads mostly for older men."""
    is_female = named["gender"] > 0.5
    if rng.random() < (0.03 if is_female else 0.1 + 0.15 * (named["age"] > 0.88)):
        return ""
    names = sorted(assets.hairs)
    weight = np.ones(len(names))
    for row, name in enumerate(names):
        is_short = name.startswith("short")
        weight[row] *= (1.0 if is_short else 2.0) if is_female else (3.5 if is_short else 0.25)
        weight[row] *= 0.4 if name in FRINGES else 1.0
        weight[row] *= 3.0 * named["african"] + 0.2 if name.startswith("afro") else 1.0
    return str(rng.choice(names, p=weight / weight.sum()))


def _hair_color(named: dict[str, float], tone: float, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Choose a hair colour that goes with skin and age, a little varied."""
    weight = np.array([3, 3, 2, 1, 0.3, 0.1, 0.05, 0.1, 0.1, 0.05])
    if tone < 0.3 and named["caucasian"] > 0.4:
        weight = np.array([1, 1.5, 2, 2, 1.5, 1.5, 1, 0.8, 0.3, 0.2])
    weight[8:] += 12 * max(0.0, named["age"] - 0.85) / 0.15
    color = HAIR_COLORS[rng.choice(len(HAIR_COLORS), p=weight / weight.sum())]
    return np.asarray(np.clip(color * rng.uniform(0.8, 1.15) * rng.normal(1, 0.015, 3), 0.03, 0.8))


def _eye_color(tone: float, rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Choose an iris colour: brown for most, light ones where the skin is light."""
    weight = np.array([4, 3, 1.5, 0.3, 0.1, 0.1, 0.1, 0.05])
    if tone < 0.32:
        weight = np.array([1, 1.5, 1.2, 1, 1, 1, 1.5, 0.8])
    color = EYE_COLORS[rng.choice(len(EYE_COLORS), p=weight / weight.sum())]
    return np.asarray(np.clip(color * rng.uniform(0.85, 1.2) * rng.normal(1, 0.04, 3), 0.02, 0.9))


def _cloth_color(rng: np.random.Generator) -> Float[np.ndarray, "3"]:
    """Draw a colour of clothes: greys and blacks as often as colours."""
    grey = rng.uniform(0.06, 0.9)
    return np.clip(grey + rng.uniform(-0.35, 0.35, 3) * (rng.random() < 0.6), 0.04, 0.92)


def sample_light(rng: np.random.Generator) -> Light:
    """Draw a soft key light above the horizon, mostly from the front, and brighter or dimmer surroundings."""
    yaw, pitch = np.radians(np.clip(rng.normal(0, 42), -95, 95)), np.radians(rng.uniform(2, 58))
    direction = np.array([np.sin(yaw) * np.cos(pitch), np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    warm, cool = rng.normal(0, 0.06), rng.normal(0, 0.05)
    exposure, share = rng.uniform(0.78, 1.12), rng.uniform(0.3, 0.72)
    key = exposure * share / 0.8 * np.array([1 + warm, 1.0, 1 - warm])
    around = exposure * (1 - share)
    sky = around * np.array([1 - cool, 1.0, 1 + cool]) * 1.3
    ground = around * rng.uniform(0.5, 0.9) * np.array([1.04, 1.0, 0.94])
    return Light(direction, key, sky, ground)


def sample_cameras(num: int, rng: np.random.Generator) -> Float[np.ndarray, "n 25"]:
    """Draw EG3D cameras: yaw mostly within +-40 degrees, some to 70, pitch within +-20, small shifts of the crop."""
    is_wide = rng.random(num) < 0.15
    yaw = np.where(is_wide, rng.uniform(-70, 70, num), np.clip(rng.normal(0, 20, num), -42, 42))
    pitch = np.clip(rng.normal(2, 8.5, num), -20, 20)
    roll = np.clip(rng.normal(0, 3.5, num), -12, 12)
    label = orbit(torch.from_numpy(yaw), torch.from_numpy(pitch), torch.from_numpy(roll))
    cam2world, intrinsics = unpack_label(label)
    shift = torch.from_numpy(rng.normal(0, 0.011, (num, 3)))
    stretch = torch.from_numpy(1 + np.clip(rng.normal(0, 0.025, (num, 1)), -0.06, 0.06))
    pivot = torch.tensor(PIVOT, dtype=torch.float64)
    pose = cam2world.clone()
    pose[:, :3, 3] = pivot + shift + (cam2world[:, :3, 3] - pivot) * stretch
    return pack_label(pose, intrinsics).float().numpy()


def sample_head(seed: int, expression: int, num_views: int, model: HeadModel, assets: Assets) -> HeadSample:
    """Draw the head number `seed` with its expression number `expression` and `num_views` cameras."""
    rng = np.random.default_rng([seed, 2, expression])
    return HeadSample(
        person=sample_person(seed, model, assets),
        expression=sample_expression(rng),
        light=sample_light(rng),
        cameras=sample_cameras(num_views, rng),
        seed=int(rng.integers(2**31)),
    )
