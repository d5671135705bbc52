"""Trains the reader's last step: `python -m training.reader.train_weighing --run DIR --looks DIR ... --out DIR`.

Reads spoiled pictures with the first and the second looks as they are, keeps what they saw (`seen.safetensors`; more
is added while there is time), and trains the weighing on it. The pictures should show people that the looks have not
learned from: what they say of those they know is better than what they say of others. Before that, what shapes tell by
themselves is learned from heads that nobody rendered, misread as those in the pictures were.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import cv2
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from galatea.faces.closer_look import CloserLook, Seen
from galatea.faces.reader import FaceReader
from galatea.faces.reader_data import built_in, part_of
from galatea.faces.reader_network import FirstReading
from galatea.faces.regions import Regions
from galatea.faces.weighing import Weighing, aligned
from galatea.morphable.actions import ACTION_INDEX, ARKIT_ACTIONS
from galatea.morphable.head import HeadModel
from training.reader.export import first_look_weights, reader_tensors
from training.reader.losses import HUBER, balanced
from training.reader.patches import RAISED, WIDER_PICTURE, pictures
from training.reader.shapes import Misreadings, Shapes, sample_shapes
from training.reader.train import rate_share
from training.reader.train_second_look import load_looks

SHIFT, ZOOM, TURN = 0.012, 0.03, 0.03
"""Standard deviations of how regions lie: region sides, log size, radians."""
BATCH, RATE, WEIGHT_DECAY, DROPPED, EPOCHS, POINTS_SHARE = 128, 1e-3, 0.2, 0.3, 32, 0.3
PLAIN_SHARE = 0.5
"""Of pictures that are not spoiled."""
NUM_SHAPES, SHAPE_STEPS, SHAPE_BATCH, SHAPE_RATE, POSE_NOISE = 100_000, 6000, 256, 2e-3, 0.02
logger = logging.getLogger(__name__)


def about_regions(num: int, generator: torch.Generator) -> Regions:
    """Return where the first look finds faces in such pictures, about."""
    shift = SHIFT / WIDER_PICTURE * torch.randn(num, 2, generator=generator)
    centre = torch.tensor([0.5, 0.5 + RAISED / WIDER_PICTURE]) + shift
    side = torch.exp(ZOOM * torch.randn(num, generator=generator)) / WIDER_PICTURE
    return Regions(centre, side, TURN * torch.randn(num, generator=generator))


@torch.no_grad()
def saw(reader: FaceReader, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
    """Return what the networks see of a batch before it is weighed, and the truth, both `aligned`."""
    crops = batch["image"].float() / 127.5 - 1
    regions = about_regions(len(crops), generator)
    first = reader.first_look(crops, regions)
    seen = reader.closer.look(crops, regions, first)
    return {
        "points": aligned(seen.points, first),
        "sigma": torch.exp(seen.log_sigma - first.log_scale[:, None]),
        "actions": seen.actions,
        "eyes": seen.eyes,
        "mouth": seen.mouth,
        "rotation": first.rotation,
        "true_points": aligned(regions.to_region(batch["points"]), first),
        "true_actions": batch["expression"],
    }


def weighed(closer: CloserLook, rows: dict[str, Tensor], dropped: float = 0.0) -> Seen:
    """Weigh what was seen; a share of the features is dropped."""
    num = len(rows["points"])
    first = FirstReading(
        rows["points"], rows["sigma"].log(), rows["rotation"], torch.full((num, 2), 0.5), torch.zeros(num)
    )
    eyes, mouth = F.dropout(rows["eyes"], dropped), F.dropout(rows["mouth"], dropped)
    return closer.weigh(Seen(first.points, first.log_sigma, rows["actions"], rows["points"][:, :2], eyes, mouth), first)


def loss(closer: CloserLook, rows: dict[str, Tensor], spread: Float[Tensor, "52"]) -> Float[Tensor, ""]:
    """Return the loss: squared errors of actions over their learned spread, and distances of points over their own."""
    seen, true = weighed(closer, rows, DROPPED), rows["true_actions"]
    error = (seen.actions - true).square() * open_eyes(true)
    distance = (seen.points - rows["true_points"]).norm(dim=-1) / rows["sigma"]
    calm = torch.where(distance < HUBER, 0.5 * distance.square(), HUBER * (distance - 0.5 * HUBER))
    return balanced(error, spread) + POINTS_SHARE * calm.mean()


def open_eyes(actions: Float[Tensor, "n 52"]) -> Float[Tensor, "n 52"]:
    """Return how much each action counts: closed eyes do not look."""
    weight = torch.ones_like(actions)
    for action, name in enumerate(ARKIT_ACTIONS):
        if name.startswith("eyeLook"):
            side = "Left" if name.endswith("Left") else "Right"
            weight[:, action] = (1 - actions[:, ACTION_INDEX[f"eyeBlink{side}"]]).clamp(0.03, 1)
    return weight


def train_shape(weighing: Weighing, shapes: Shapes, misreadings: Misreadings, num_steps: int, seed: int) -> None:
    """Teach a weighing what shapes tell by themselves."""
    generator = torch.Generator().manual_seed(seed)
    weighing.shape.requires_grad_(True)
    optimizer = torch.optim.AdamW(weighing.shape.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=0.01)
    weight = open_eyes(shapes.actions)
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = SHAPE_RATE * rate_share(step / num_steps)
        chosen = torch.randint(len(weight), (SHAPE_BATCH,), generator=generator)
        rotation = shapes.rotation[chosen]
        points = shapes.points[chosen] + misreadings.draw(rotation, generator)
        rotation = rotation + POSE_NOISE * torch.randn(rotation.shape, generator=generator)
        guess = weighing.shape(weighing.shape_of(points, rotation))
        total = ((guess - shapes.actions[chosen]).square() * weight[chosen]).mean()
        optimizer.zero_grad(set_to_none=True)
        total.backward()
        optimizer.step()


def gather(reader: FaceReader, folder: Path, out: Path, seconds: float, seed: int) -> dict[str, Tensor]:
    """Return what is seen of as many pictures as there is time for, and of those of earlier runs."""
    generator, begun = torch.Generator().manual_seed(seed), time.monotonic()
    kept = out / "seen.safetensors"
    parts = [load_file(kept)] if kept.exists() else []
    stream = pictures(folder, seed, plain_share=PLAIN_SHARE)
    while time.monotonic() - begun < seconds:
        parts.append(saw(reader, next(stream), generator))
    rows = {name: torch.cat([part[name].float() for part in parts]) for name in parts[0]}
    save_file(rows, kept.with_suffix(".tmp"))
    kept.with_suffix(".tmp").replace(kept)
    return rows


def train(closer: CloserLook, rows: dict[str, Tensor], seed: int, num_epochs: int = EPOCHS) -> None:
    """Train the weighing."""
    generator = torch.Generator().manual_seed(seed)
    spread = nn.Parameter(torch.full((52,), -1.5))
    closer.weighing.requires_grad_(True)
    closer.weighing.shape.requires_grad_(False)
    parameters = [*closer.weighing.hidden.parameters(), *closer.weighing.out.parameters(), spread]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, betas=(0.9, 0.99), weight_decay=WEIGHT_DECAY)
    num = len(rows["points"])
    steps, step, mean = num_epochs * (num // BATCH), 0, 0.0
    for epoch in range(num_epochs):
        for chosen in torch.randperm(num, generator=generator)[: num // BATCH * BATCH].view(-1, BATCH):
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate_share(step / steps)
            total = loss(closer, {name: value[chosen] for name, value in rows.items()}, spread)
            optimizer.zero_grad(set_to_none=True)
            total.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step, mean = step + 1, 0.95 * mean + 0.05 * float(total.detach())
        logger.info("epoch %d  loss %.4f", epoch + 1, mean)


def main() -> None:
    """Gather and train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, help="folder of training.reader.train; the built-in first look without it")
    parser.add_argument("--looks", type=Path, required=True, help="folder of training.reader.train_second_look")
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=10.0, help="to look at pictures; 0 takes what is there")
    parser.add_argument("--from-built-in", action="store_true", help="go on from the built-in weighing")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    first, looks = first_look_weights(args.run), load_looks(args.looks)
    weighing = part_of(built_in(), "weighing.") if args.from_built_in else None
    reader = FaceReader.from_tensors(reader_tensors(first, looks, weighing, HeadModel.load()))
    rows = gather(reader, args.pictures, args.out, 60 * args.minutes, args.seed)
    logger.info("%d examples", len(rows["points"]))
    if not args.from_built_in:
        train_shape(
            reader.closer.weighing, sample_shapes(NUM_SHAPES, args.seed), Misreadings.of(rows), SHAPE_STEPS, args.seed
        )
    train(reader.closer, rows, args.seed)
    weights = {name: value.detach().contiguous() for name, value in reader.closer.weighing.state_dict().items()}
    save_file(weights, args.out / "weighing.safetensors")


if __name__ == "__main__":
    main()
