"""Writes and reads shards of synthetic heads: safetensors files of 256 images, published atomically, resumable."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from galatea.errors import ConfigError
from galatea.morphable.cache import HEAD_VERSION
from galatea.morphable.head import HeadModel
from training.heads.assets import Assets
from training.heads.code import code_fields, encode
from training.heads.people import sample_head
from training.heads.renderer import PARTS, HeadRenderer

FORMAT_VERSION = 1
NUM_EXPRESSIONS, NUM_VIEWS = 2, 2
IMAGES_PER_SHARD = 256
IMAGES_PER_PERSON = NUM_EXPRESSIONS * NUM_VIEWS


@dataclass(frozen=True)
class ShardPlan:
    """Which people go into which file. People are numbered from `seed * 1_000_000` on."""

    out: Path
    count: int
    size: int
    seed: int

    def __post_init__(self) -> None:
        if self.count < IMAGES_PER_PERSON or self.size < 16 or self.seed < 0:
            raise ConfigError(
                f"count, size, seed: expected at least {IMAGES_PER_PERSON}, 16 and 0, "
                f"got {self.count}, {self.size}, {self.seed}"
            )

    @property
    def num_shards(self) -> int:
        """Number of files; the last one may be smaller."""
        return -(-self.count // IMAGES_PER_SHARD)

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.out / f"heads-{self.seed:03d}-{shard:05d}.safetensors"

    def people(self, shard: int) -> range:
        """Return the person numbers of a shard."""
        per_shard = IMAGES_PER_SHARD // IMAGES_PER_PERSON
        start = self.seed * 1_000_000 + shard * per_shard
        left = -(-(self.count - shard * IMAGES_PER_SHARD) // IMAGES_PER_PERSON)
        return range(start, start + min(per_shard, left))

    def missing(self) -> list[int]:
        """Return the shards that are not there yet; a file under its final name is complete."""
        return [shard for shard in range(self.num_shards) if not self.path(shard).exists()]


def render_shard(plan: ShardPlan, shard: int, renderer: HeadRenderer) -> dict[str, np.ndarray]:
    """Render every image of a shard: people x expressions x views, in that order."""
    model, assets = renderer.model, renderer.assets
    rows: dict[str, list[np.ndarray]] = {}
    for person in plan.people(shard):
        for expression in range(NUM_EXPRESSIONS):
            sample = sample_head(person, expression, NUM_VIEWS, model, assets)
            code = encode(sample, assets)
            for picture, camera in zip(renderer.render(sample, plan.size), sample.cameras, strict=True):
                row = {
                    "rgb": picture.rgb,
                    "alpha": picture.alpha,
                    "part": picture.part,
                    "camera": camera,
                    "identity": sample.person.identity,
                    "expression": sample.expression,
                    "code": code,
                    "person": np.int64(person),
                }
                for name, value in row.items():
                    rows.setdefault(name, []).append(np.asarray(value))
    return {name: np.ascontiguousarray(np.stack(values)) for name, values in rows.items()}


def write_shard(path: Path, arrays: dict[str, np.ndarray], model: HeadModel, assets: Assets) -> None:
    """Publish a shard under its final name in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {
        "format_version": str(FORMAT_VERSION),
        "head_version": str(HEAD_VERSION),
        "num_identity": str(model.num_identity),
        "code_fields": json.dumps(code_fields(assets)),
        "parts": json.dumps(PARTS),
        "licence": "CC0-1.0 (rendered from CC0 MakeHuman data)",
    }
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        save_file(arrays, temporary, metadata)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_shard(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays and the metadata of a shard."""
    with safe_open(path, framework="numpy") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata())  # noqa: SIM118 not a dict
