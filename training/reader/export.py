"""Writes the reader's weights: `python -m training.reader.export --run DIR --looks DIR --weighing DIR --pictures DIR`.

Folds the batch normalisation, calibrates actions and uncertainties on renders that nothing was trained on (all of
`--pictures`), whose expressions should be as frequent as people's are (`training.heads.render`), adds the landmarks'
mirror pairs and their places on the head model, and stores float16 and bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from galatea.faces.reader import FaceReader
from galatea.faces.reader_data import RESOURCE, SCALE, built_in, part_of
from galatea.faces.reader_network import FirstLook, fold_normalisation
from galatea.faces.regions import Regions
from galatea.faces.weighing import Weighing
from galatea.morphable.actions import ARKIT_ACTIONS, mirror_permutation
from galatea.morphable.head import HeadModel
from training.reader.labels import is_shown, mean_points, mirror_landmarks, places
from training.reader.patches import BATCH, RAISED, WIDER_PICTURE, pictures
from training.reader.train_second_look import Looks, load_looks

NUM_EXAMPLES, MAX_YAW_DEG = 2400, 45.0
MIN_CORRELATION, SLOPE_RANGE = 0.4, (0.5, 1.2)
"""Actions that are read worse than this keep the network's own scale; others are stretched within these bounds."""
CLIPPED_ROUNDS, CLIPPED_STRETCH = 8, 1.1
"""Readings are clipped to [0, 1], which flattens them once more: they are stretched by at most so much more for it."""
ROUNDED = ("hidden.0.weight", "both.weight", "weighing.out.weight")
"""Matrices that are stored as bytes."""
OFFSET_BELOW = 0.02
"""An action counts as resting below this when the resting value is measured."""


def first_look_weights(run: Path | None) -> dict[str, Tensor]:
    """Return the folded weights of a training's first look, or of the built-in one."""
    if run is None:
        return part_of(built_in(), "first.")
    first = load_file(run / "average.safetensors")
    network = FirstLook(first["mean_points"])
    network.load_state_dict(first)
    fold_normalisation(network.eval())
    return dict(network.state_dict())


def folded(network: nn.Module, weights: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return a network's weights without batch normalisation, under the names of the reader's file."""
    network.load_state_dict(weights)
    fold_normalisation(network.eval())
    return {f"{part}.{name}": value.detach() for name, value in network.state_dict().items()}


def reader_tensors(
    first: dict[str, Tensor], looks: dict[str, Tensor], weighing: dict[str, Tensor] | None, model: HeadModel
) -> dict[str, Tensor]:
    """Return the folded networks and what belongs to them, uncalibrated.

    Args:
        first: folded weights of the first look.
        looks: of both second looks, with their normalisation.
        weighing: None adds nothing to what the looks say.
        model: whose mean face and landmarks are stored.
    """
    mean = torch.from_numpy(mean_points(model))
    second = Looks(mean)
    second.load_state_dict(looks)
    vertex, weight = places(model)
    if weighing is None:
        untrained = Weighing(mean)
        nn.init.zeros_(untrained.out.weight)
        weighing = untrained.state_dict()
    return {
        **{f"first.{name}": value for name, value in first.items()},
        **folded(second.eyes, second.eyes.state_dict(), "eyes"),
        **folded(second.mouth, second.mouth.state_dict(), "mouth"),
        **{f"weighing.{name}": value.detach() for name, value in weighing.items()},
        "mirror": torch.from_numpy(mirror_landmarks()),
        "vertex": vertex,
        "barycentric": weight,
        "calibration": torch.stack([torch.ones(52), torch.zeros(52)]),
        "sigma_scale": torch.ones(()),
    }


@torch.no_grad()
def held_out(
    tensors: dict[str, Tensor], folder: Path, num: int
) -> tuple[Float[Tensor, "n 52"], Float[Tensor, "n 52"], Float[Tensor, "n 478"]]:
    """Return read and true coefficients, and landmark errors in standard deviations, of renders.

    The pictures are clear, on backgrounds, and no profiles, as most photos are.
    """
    wide = {**tensors, "calibration": torch.stack([torch.full((52,), 0.5), torch.full((52,), 0.25)])}
    reader, stream = FaceReader.from_tensors(wide), pictures(folder, 5, is_held_out=True, plain_share=1.0, every=1)
    read: list[Tensor] = []
    true: list[Tensor] = []
    ratio: list[Tensor] = []
    while sum(len(rows) for rows in true) < num:
        batch = next(stream)
        regions = Regions(
            torch.tensor([0.5, 0.5 + RAISED / WIDER_PICTURE]).expand(BATCH, 2),
            torch.full((BATCH,), 1 / WIDER_PICTURE),
            torch.atan2(batch["rotation"][:, 1, 0], batch["rotation"][:, 0, 0]),
        )
        reading = reader.read(batch["image"].float() / 127.5 - 1, regions)
        turned = torch.rad2deg(torch.asin(batch["rotation"][:, 0, 2].clamp(-1, 1)))
        chosen = turned.abs() <= MAX_YAW_DEG
        # Half the slope and a shift keep coefficients off the bounds of [0, 1], where they would be clipped.
        read.append((reading.expression[chosen] - 0.25) * 2)
        true.append(batch["expression"][chosen])
        ratio.append(((reading.points - batch["points"]).norm(dim=-1) / reading.sigma)[chosen])
    return torch.cat(read), torch.cat(true), torch.cat(ratio)


def calibrate(read: Float[Tensor, "n 52"], true: Float[Tensor, "n 52"]) -> Float[Tensor, "2 52"]:
    """Return slope and offset of each action so that read values, clipped, follow true ones one to one.

    They rest at zero. A regression shrinks what it is unsure of; the readings are stretched back, alike for both sides.
    Shut eyes do not look: their gaze is not counted.
    """
    mirror = list(mirror_permutation())
    read, true = torch.cat([read, read[:, mirror]]), torch.cat([true, true[:, mirror]])
    table = torch.stack([torch.ones(52), torch.zeros(52)])
    for action, name in enumerate(ARKIT_ACTIONS):
        rows = is_shown(name, true)
        given, seen = true[rows, action], read[rows, action]
        # An action that nobody does has no correlation at all.
        if not torch.corrcoef(torch.stack([seen, given]))[0, 1] >= MIN_CORRELATION:
            continue
        rest = seen[given <= OFFSET_BELOW].median().clamp_min(0)
        centred = given - given.mean()
        plain = 1 / ((centred * seen).sum() / centred.square().sum()).clamp(*SLOPE_RANGE)
        stretch = plain
        for _ in range(CLIPPED_ROUNDS):
            slope = (centred * (stretch * (seen - rest)).clamp(0, 1)).sum() / centred.square().sum()
            stretch = (stretch / slope).clamp(plain, CLIPPED_STRETCH * plain)
        table[:, action] = torch.stack([stretch, -stretch * rest])
    return table


def packed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as they are stored: float16, large matrices as bytes with a scale for each row."""
    small: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if name.endswith(ROUNDED):
            scale = value.abs().amax(1, keepdim=True).clamp_min(1e-8) / 127
            small[name], small[name + SCALE] = torch.round(value / scale).to(torch.int8), scale.half()
        else:
            small[name] = value.half() if value.is_floating_point() else value.short()
    return {name: value.contiguous() for name, value in small.items()}


def main() -> None:
    """Export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of training.reader.train; the built-in first look without it")
    parser.add_argument("--looks", type=Path, required=True, help="folder of training.reader.train_second_look")
    parser.add_argument("--weighing", type=Path, required=True, help="folder of training.reader.train_weighing")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("galatea/data") / RESOURCE)
    parser.add_argument("--examples", type=int, default=NUM_EXAMPLES)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = HeadModel.load()
    first = first_look_weights(args.run)
    weighing = load_file(args.weighing / "weighing.safetensors")
    tensors = reader_tensors(first, load_looks(args.looks), weighing, model)
    read, true, ratio = held_out(tensors, args.pictures, args.examples)
    tensors["calibration"] = calibrate(read, true)
    # A two-dimensional Gaussian has its median at 1.1774 standard deviations.
    tensors["sigma_scale"] = ratio.median() / 1.1774
    temporary = args.out.with_suffix(".tmp")
    save_file(packed(tensors), temporary, {"licence": "Apache-2.0"})
    temporary.chmod(0o644)
    temporary.replace(args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1e6:.2f} MB, sigma scale {float(tensors['sigma_scale']):.2f}")


if __name__ == "__main__":
    main()
