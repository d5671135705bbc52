"""The built-in weights of the reader of faces, and where its landmarks lie on the head model."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from galatea.errors import WeightsError
from galatea.morphable.correspondence import Correspondence

RESOURCE = "face_reader.safetensors"
SCALE = ".scale"
"""Ends the names of row scales; the tensor of the same name without it holds bytes to be multiplied with them."""


def built_in() -> dict[str, Tensor]:
    """Return the tensors of the built-in reader.

    Raises:
        WeightsError: if the package data is missing or damaged.
    """
    try:
        return load((files("galatea.data") / RESOURCE).read_bytes())
    except (OSError, ModuleNotFoundError, SafetensorError) as error:
        raise WeightsError(
            f"face reader: expected package data galatea/data/{RESOURCE}, got {error!r}; reinstall"
        ) from error


def unpacked(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with those that are stored as bytes brought back to numbers."""
    plain = {name: value for name, value in tensors.items() if not name.endswith(SCALE)}
    scaled = {name: plain[name].float() * tensors[name + SCALE].float() for name in plain if name + SCALE in tensors}
    return plain | scaled


def part_of(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    """Return a network's own weights in float32, from the reader's tensors whose names begin with `part`."""
    own = {name[len(part) :]: value for name, value in tensors.items() if name.startswith(part)}
    return {name: value.float() for name, value in unpacked(own).items()}


def reader_correspondence(tensors: Mapping[str, Tensor] | None = None) -> Correspondence:
    """Return where the reader's landmarks and pupils lie on the head model; they lie exactly there.

    Raises:
        WeightsError: if the package data is missing or damaged.
    """
    found = tensors if tensors is not None else built_in()
    try:
        rows = [*range(468), 468, 473]
        vertex, weight = found["vertex"][rows].long(), found["barycentric"][rows].float()
    except (KeyError, IndexError) as error:
        raise WeightsError(f"face reader: its places on the head are missing ({error}); reinstall") from error
    flat = torch.ones(len(rows))
    return Correspondence(vertex, weight, torch.zeros(len(rows), 3), 0.02 * flat, torch.ones(52))
