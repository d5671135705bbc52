"""Renders the reader's training pictures: `python -m training.reader.render --assets DIR --out DIR --people 3360`.

Tight views of heads (focal length 1.25 times that of portrait crops), 192 pixels, one expression and two views a
person: another face teaches more than another expression of the same. More brows, pouts, frowns, vertical gaze,
half-closed eyes and turned heads than the generator's data have.
Camera distances vary with the focal length, so that faces keep their size and perspective changes. Shards of 42 people
appear one after the other under their final names; a started folder is gone on with. Several processes may fill one
folder with different `--first` people.
"""

from __future__ import annotations

import argparse
import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from safetensors.numpy import save_file

from galatea.cameras import PIVOT, orbit, pack_label, unpack_label
from galatea.morphable.actions import ARKIT_ACTIONS, action_vector
from galatea.morphable.head import HeadModel
from training.heads.assets import load_assets
from training.heads.people import sample_head
from training.heads.renderer import HeadRenderer

SIZE, ZOOM, NUM_EXPRESSIONS, NUM_VIEWS, PEOPLE_PER_SHARD = 192, 1.25, 1, 2, 42
FIRST_PERSON = 300_000_000
"""Far from the people of other data."""
MIXED_SHARE = 0.8
"""Of expressions; the others are those of `training.heads.expressions`."""
LEADING = ("jawOpen", "mouthSmile", "mouthFrown", "mouthPucker", "mouthFunnel")
MOUTH = (*LEADING, "mouthStretch", "mouthUpperUp", "mouthLowerDown", "mouthPress", "mouthRollLower", "mouthRollUpper",
         "mouthShrugLower", "mouthShrugUpper", "mouthDimple", "cheekPuff", "jawLeft", "jawRight", "jawForward",
         "mouthLeft", "mouthRight", "mouthClose", "tongueOut")  # fmt: skip
UPPER = ("browOuterUp", "browDown", "cheekSquint", "noseSneer", "eyeSquint", "eyeWide")
MOUTH_COUNTS, UPPER_COUNTS = (0.22, 0.3, 0.28, 0.2), (0.45, 0.35, 0.2)
"""Shares of expressions with none, one, ... actions of the mouth and of the upper face."""
LEADING_SHARES = (0.19, 0.17, 0.23, 0.24, 0.17)
"""Of `LEADING`: what is hard to read is drawn more often."""
RAISED_BROWS = 0.42
"""Share of expressions with raised inner brows."""
logger = logging.getLogger(__name__)


def mixed_expression(rng: np.random.Generator) -> Float[np.ndarray, "52"]:
    """Draw up to a few actions of mouth and brows, often lids that are not quite open, always a gaze."""
    weights: dict[str, float] = {}
    count = int(rng.choice(4, p=MOUTH_COUNTS))
    names = [*rng.choice(LEADING, min(count, 2), replace=False, p=LEADING_SHARES)]
    names += [*rng.choice(MOUTH, max(count - 1, 0), replace=False)]
    for name in names:
        top = (0.4 if name == "mouthClose" else 1.0) / (1.0 if count < 3 else 1.4)
        _add(weights, str(name), top * rng.uniform(0, 1), rng.normal(0, 0.25) if rng.random() < 0.4 else 0.0)
    if rng.random() < RAISED_BROWS:
        _add(weights, "browInnerUp", rng.uniform(0, 1), 0.0)
    for name in rng.choice(UPPER, int(rng.choice(3, p=UPPER_COUNTS)), replace=False):
        _add(weights, str(name), rng.uniform(0, 1), rng.normal(0, 0.3) if rng.random() < 0.3 else 0.0)
    if rng.random() < 0.35:
        _add(weights, "eyeBlink", 1.0 if rng.random() < 0.35 else rng.uniform(0, 1), rng.choice([0, 0, 0, -1.0, 1.0]))
    spread = 0.2 if rng.random() < 0.4 else 0.6
    right, up = np.clip(rng.normal(0, spread, 2), -1, 1)
    towards, away = ("Left", "Right") if right > 0 else ("Right", "Left")
    weights |= {f"eyeLookOut{away}": abs(right), f"eyeLookIn{towards}": abs(right)}
    _add(weights, "eyeLookUp" if up > 0 else "eyeLookDown", abs(up), 0.0)
    return action_vector(weights).clamp(0, 1).numpy()


def _add(weights: dict[str, float], name: str, value: float, skew: float) -> None:
    """Add an action, on both sides if it has sides; a positive skew favours the left one."""
    sides = {name: 1.0} if name in ARKIT_ACTIONS else {f"{name}Left": 1 + skew, f"{name}Right": 1 - skew}
    for side, share in sides.items():
        weights[side] = weights.get(side, 0.0) + float(np.clip(value * share, 0, 1))


def tight_cameras(rng: np.random.Generator, num: int) -> Float[np.ndarray, "n 25"]:
    """Draw cameras: yaw to 75 degrees, pitch to 32, roll to 18."""
    yaw = np.where(rng.random(num) < 0.35, rng.uniform(-75, 75, num), np.clip(rng.normal(0, 24, num), -60, 60))
    pitch, roll = np.clip(rng.normal(1, 12, num), -32, 32), np.clip(rng.normal(0, 5, num), -18, 18)
    cam2world, intrinsics = unpack_label(orbit(torch.from_numpy(yaw), torch.from_numpy(pitch), torch.from_numpy(roll)))
    pivot = torch.tensor(PIVOT, dtype=torch.float64)
    dolly = torch.from_numpy(np.exp(rng.uniform(-0.25, 0.25, (num, 1))))
    shift = torch.from_numpy(rng.normal(0, 0.012, (num, 3)))
    pose, lens = cam2world.clone(), intrinsics.clone()
    pose[:, :3, 3] = pivot + shift + (cam2world[:, :3, 3] - pivot) * dolly
    lens[:, [0, 1], [0, 1]] *= ZOOM * dolly
    return pack_label(pose, lens).float().numpy()


def render_shard(renderer: HeadRenderer, people: range, mixed_share: float = MIXED_SHARE) -> dict[str, np.ndarray]:
    """Return the arrays of some people's pictures."""
    rows: dict[str, list[np.ndarray]] = {}
    for person in people:
        for number in range(NUM_EXPRESSIONS):
            rng = np.random.default_rng([person, 7, number])
            sample = sample_head(person, number, NUM_VIEWS, renderer.model, renderer.assets)
            cameras = tight_cameras(rng, NUM_VIEWS)
            expression = mixed_expression(rng) if rng.random() < mixed_share else sample.expression
            sample = replace(sample, cameras=cameras, expression=expression)
            for picture, camera in zip(renderer.render(sample, SIZE), cameras, strict=True):
                row = {
                    "rgb": picture.rgb, "alpha": picture.alpha, "part": picture.part, "camera": camera,
                    "identity": sample.person.identity, "expression": expression, "person": np.int64(person),
                }  # fmt: skip
                for name, value in row.items():
                    rows.setdefault(name, []).append(np.asarray(value))
    return {name: np.ascontiguousarray(np.stack(values)) for name, values in rows.items()}


def main() -> None:
    """Render shard after shard."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--assets", type=Path, required=True, help="folder of MakeHuman's system assets")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--people", type=int, default=3360)
    parser.add_argument("--first", type=int, default=FIRST_PERSON)
    parser.add_argument("--mixed-share", type=float, default=MIXED_SHARE, help="of expressions that are hard to read")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    model = HeadModel.load()
    renderer = HeadRenderer(model, load_assets(args.assets, model.base_index.numpy()))
    for start in range(args.first, args.first + args.people, PEOPLE_PER_SHARD):
        path = args.out / f"pictures-{start:09d}.safetensors"
        if not path.exists():
            people = range(start, min(start + PEOPLE_PER_SHARD, args.first + args.people))
            temporary = path.with_suffix(f".{os.getpid()}.tmp")
            save_file(render_shard(renderer, people, args.mixed_share), temporary)
            temporary.replace(path)
            logger.info("%s", path.name)


if __name__ == "__main__":
    main()
