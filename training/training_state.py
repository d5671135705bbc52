"""Checkpoints of a training run: weights, averaged weights, optimizer and counters in one safetensors file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class TrainingState:
    """What training goes on from.

    Attributes:
        model: the generator's state.
        average: its averaged weights.
        optimizer: Adam's state of every parameter, by its index.
        adversary: the discriminator's state, by name; empty without one.
        counters: steps, images and seconds so far.
    """

    model: dict[str, Tensor]
    average: dict[str, Tensor]
    optimizer: dict[int, dict[str, Tensor]]
    adversary: dict[str, Tensor]
    counters: dict[str, float]


def write_checkpoint(folder: Path, state: TrainingState) -> None:
    """Publish a checkpoint in one step."""
    tensors = {f"model.{name}": value for name, value in state.model.items()}
    tensors |= {f"average.{name}": value for name, value in state.average.items()}
    for index, values in state.optimizer.items():
        tensors |= {f"adam.{index}.{name}": value for name, value in values.items()}
    tensors |= {f"adversary.{name}": value for name, value in state.adversary.items()}
    path = folder / CHECKPOINT
    partial = path.with_suffix(".partial")
    facts = {"facts": json.dumps(state.counters)}
    save_file({name: value.contiguous() for name, value in tensors.items()}, partial, facts)
    partial.replace(path)


def read_checkpoint(folder: Path) -> TrainingState | None:
    """Read the checkpoint of a run; None where there is none yet."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    optimizer: dict[int, dict[str, Tensor]] = {}
    named: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "adversary": {}}
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 not a dict
            group, rest = name.split(".", 1)
            value = file.get_tensor(name)
            if group == "adam":
                index, key = rest.split(".")
                optimizer.setdefault(int(index), {})[key] = value
            else:
                named[group][rest] = value
        counters = json.loads(file.metadata()["facts"])
    return TrainingState(named["model"], named["average"], optimizer, named["adversary"], counters)
