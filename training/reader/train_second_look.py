"""Trains the second looks at eyes and mouth: `python -m training.reader.train_second_look --pictures DIR --out DIR`.

They are told the true pose, a little off, and look about where the eyes and the mouth are, so that they need no first
look to learn from. The learning rate follows the clock. Both learn apart: two processes may train one each (`--only`)
into one folder.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import time
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate

from galatea.faces.reader_data import built_in, part_of
from galatea.faces.second_look import EYE_ACTIONS, MOUTH_ACTIONS, eye_action_index, new_looks
from galatea.morphable.actions import ARKIT_ACTIONS
from galatea.morphable.head import HeadModel
from training.reader.labels import mean_points
from training.reader.losses import balanced, points_likelihood
from training.reader.patches import PatchExamples
from training.reader.train import rate_share
from training.reader.unfold import unfold_normalisation

BATCH, PEAK_RATE, WEIGHT_DECAY, MAX_NORM, EMA = 32, 1.5e-3, 0.02, 60.0, 0.998
POINTS_SHARE, ACTIONS_SHARE, GAZE_SHARE = 4.0, 3.0, 0.7
"""Points teach what actions are read from, and what is learned of them holds for other people too; actions alone are
learned by heart. (With a share of 0.1 points were a third less exact.)"""
SAVE_SECONDS, LOG_STEPS, START_EXAMPLES = 90.0, 200, 256
logger = logging.getLogger(__name__)


class Looks(nn.Module):
    """Both networks, and the learned spread of each of their numbers."""

    def __init__(self, mean: Float[Tensor, "478 2"]) -> None:
        super().__init__()
        self.eyes, self.mouth = new_looks(mean)
        self.eye_spread = nn.Parameter(torch.full((len(EYE_ACTIONS) + 1,), -1.5))
        self.mouth_spread = nn.Parameter(torch.full((len(MOUTH_ACTIONS),), -1.5))
        self.gaze_spread = nn.Parameter(torch.tensor(-1.5))


PARTS = ("eyes", "mouth")


def part_names(looks: Looks, part: str) -> set[str]:
    """Return the names of the tensors that belong to one of the networks."""
    own = ("mouth.", "mouth_spread") if part == "mouth" else ("eyes.", "eye_spread", "gaze_spread")
    return {name for name in looks.state_dict() if name.startswith(own)}


def load_looks(folder: Path) -> dict[str, Tensor]:
    """Return the tensors of both networks as training left them."""
    return {name: value for part in PARTS for name, value in load_file(folder / f"{part}.safetensors").items()}


def save_looks(looks: Looks, tensors: dict[str, Tensor], parts: tuple[str, ...], folder: Path) -> None:
    """Write the tensors of some of the networks, a file for each."""
    for part in parts:
        temporary = folder / f"{part}.tmp"
        save_file({name: tensors[name].contiguous() for name in sorted(part_names(looks, part))}, temporary)
        temporary.replace(folder / f"{part}.safetensors")


def inputs(batch: dict[str, Tensor]) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return what each network is given: patches and poses."""
    eyes = (batch["eyes"].flatten(0, 1).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    mouth = (batch["mouth"].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    return (eyes, batch["eye_rotation"].flatten(0, 1)), (mouth, batch["mouth_rotation"])


def read_eyes(looks: Looks, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Apply the network of the eyes, to all right and left ones in turn; actions come with their true values."""
    patches, rotation = inputs(batch)[0]
    eye = looks.eyes(patches, rotation)
    true = batch["expression"][:, eye_action_index().to(patches.device)].flatten(0, 1)
    gaze = nn.functional.normalize(batch["eye_forward"].flatten(0, 1) + eye.numbers[:, -3:], dim=-1)
    return {"points": eye.points, "sigma": eye.log_sigma, "actions": eye.numbers[:, :-3], "true": true, "gaze": gaze}


def read_mouths(looks: Looks, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Apply the network of the mouth; actions come with their true values."""
    lips = looks.mouth(*inputs(batch)[1])
    true = batch["expression"][:, list(MOUTH_ACTIONS)]
    return {"points": lips.points, "sigma": lips.log_sigma, "actions": lips.numbers, "true": true}


def eyes_loss(looks: Looks, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of the eyes and its parts."""
    read = read_eyes(looks, batch)
    points = points_likelihood(read["points"], read["sigma"], batch["eye_points"].flatten(0, 1))
    seen = (1 - read["true"][:, EYE_ACTIONS.index("eyeBlink")]).clamp(0.03, 1)
    is_look = torch.tensor([name.startswith("eyeLook") for name in (*EYE_ACTIONS, "browInnerUp")])
    actions = (read["actions"] - read["true"]).square() * torch.where(is_look, seen[:, None], 1.0)
    gaze = (read["gaze"] - batch["gaze"].flatten(0, 1)).square().mean(-1, keepdim=True) * seen[:, None]
    total = (
        POINTS_SHARE * points
        + ACTIONS_SHARE * balanced(actions, looks.eye_spread)
        + GAZE_SHARE * balanced(gaze, looks.gaze_spread[None])
    )
    return total, {
        "eye_points": float(points.detach()),
        "eye": float(actions.detach().mean()),
        "gaze": float(gaze.detach().mean()),
    }


def mouth_loss(looks: Looks, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of the mouths and its parts."""
    read = read_mouths(looks, batch)
    points = points_likelihood(read["points"], read["sigma"], batch["mouth_points"])
    actions = (read["actions"] - read["true"]).square()
    total = POINTS_SHARE * points + ACTIONS_SHARE * balanced(actions, looks.mouth_spread)
    return total, {"mouth_points": float(points.detach()), "mouth": float(actions.detach().mean())}


LOSSES = {"eyes": eyes_loss, "mouth": mouth_loss}


def loss(looks: Looks, batch: dict[str, Tensor], parts: tuple[str, ...] = PARTS) -> tuple[Tensor, dict[str, float]]:
    """Return the total and its parts."""
    found = [LOSSES[part](looks, batch) for part in parts]
    shares = {name: value for _, figures in found for name, value in figures.items()}
    return torch.stack([total for total, _ in found]).sum(), shares


def agreement(true: Float[Tensor, "n a"], read: Float[Tensor, "n a"], names: list[str]) -> str:
    """Return correlations and slopes as text."""
    x, y = true - true.mean(0), read - read.mean(0)
    slopes = (x * y).sum(0) / x.square().sum(0).clamp_min(1e-9)
    values = slopes * x.norm(dim=0) / y.norm(dim=0).clamp_min(1e-9)
    rows = zip(names, values.tolist(), slopes.tolist(), strict=True)
    return " ".join(f"{name}:{value:.2f}/{slope:.2f}" for name, value, slope in rows)


def train(
    looks: Looks,
    pictures: Path,
    out: Path,
    seconds: float,
    seed: int,
    rate: float = PEAK_RATE,
    parts: tuple[str, ...] = PARTS,
) -> None:
    """Train some of the networks until the clock is out."""
    loader = DataLoader(PatchExamples(pictures, seed), BATCH, num_workers=1, prefetch_factor=20)
    average = {name: value.detach().clone() for name, value in looks.state_dict().items()}
    learned = [value for name, value in looks.named_parameters() if any(name in part_names(looks, p) for p in parts)]
    optimizer = torch.optim.AdamW(learned, lr=0.0, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY)
    begun = saved = time.monotonic()
    means: dict[str, float] = {}
    for step, batch in enumerate(loader):
        spent = time.monotonic() - begun
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_share(min(spent / seconds, 1.0))
        with torch.autocast("cpu", torch.bfloat16):
            total, shares = loss(looks, batch, parts)
        optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        if bool(torch.isfinite(nn.utils.clip_grad_norm_(learned, MAX_NORM))):
            optimizer.step()
        share = min(EMA, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in looks.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - share)
        means = {name: means.get(name, value) * 0.99 + 0.01 * value for name, value in shares.items()}
        is_over = spent >= seconds
        if step % LOG_STEPS == 0:
            rounded = {name: round(value, 4) for name, value in means.items()}
            logger.info("%5.0f s  seen %d  %s", spent, step * BATCH, json.dumps(rounded))
        if is_over or time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            save_looks(looks, average, parts, out)
        if is_over:
            return


def grown(earlier: dict[str, Tensor], fresh: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of an earlier training; layers, and points behind its own, that it did not have are fresh."""
    result = {name: value.clone() for name, value in fresh.items()}
    for name, value in earlier.items():
        if not name.endswith("mean_points"):
            result[name][tuple(slice(length) for length in value.shape)] = value
    return result


def start_from_built_in(looks: Looks, pictures: Path) -> None:
    """Take over the built-in second looks; their batch normalisation is put back with the statistics of examples."""
    rows = itertools.islice(PatchExamples(pictures, 7), START_EXAMPLES)
    eyes, mouth = inputs(default_collate(list(rows)))
    unfold_normalisation(looks.eyes, part_of(built_in(), "eyes."), *eyes)
    unfold_normalisation(looks.mouth, part_of(built_in(), "mouth."), *mouth)


@torch.no_grad()
def check(out: Path, pictures: Path, num_batches: int) -> None:
    """Print how well held-out patches are read."""
    looks = Looks(torch.from_numpy(mean_points(HeadModel.load())))
    looks.load_state_dict(load_looks(out))
    looks.eval()
    loader = iter(DataLoader(PatchExamples(pictures, 77, is_held_out=True), 50))
    batches = [next(loader) for _ in range(num_batches)]
    names = {"eyes": [*EYE_ACTIONS, "browInnerUp"], "mouth": [ARKIT_ACTIONS[index] for index in MOUTH_ACTIONS]}
    for part, read_part, label in (("eyes", read_eyes, "eye_points"), ("mouth", read_mouths, "mouth_points")):
        read = [read_part(looks, batch) for batch in batches]
        columns = {name: torch.cat([rows[name] for rows in read]) for name in read[0]}
        true = torch.cat([batch[label] for batch in batches]).reshape(columns["points"].shape)
        error = float((columns["points"] - true).norm(dim=-1).median())
        print(f"{part}: median error of points {error:.4f} of a patch")
        print(agreement(columns["true"], columns["actions"], names[part]))


def main() -> None:
    """Train, or check what was trained."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=PEAK_RATE, help="highest learning rate")
    parser.add_argument("--start", type=Path, help="folder of an earlier training to go on from; what it lacks is new")
    parser.add_argument("--from-built-in", action="store_true", help="go on from the built-in weights")
    parser.add_argument("--only", choices=PARTS, help="train one of the networks")
    parser.add_argument("--check", type=int, default=0, help="read so many batches of held-out patches instead")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    if args.check:
        check(args.out, args.pictures, args.check)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    looks = Looks(torch.from_numpy(mean_points(HeadModel.load())))
    if args.start is not None:
        looks.load_state_dict(grown(load_looks(args.start), looks.state_dict()))
    if args.from_built_in:
        start_from_built_in(looks, args.pictures)
    looks.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts = (args.only,) if args.only else PARTS
    train(looks, args.pictures, args.out, args.minutes * 60, args.seed, args.rate, parts)


if __name__ == "__main__":
    main()
