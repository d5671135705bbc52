"""Shards of synthetic heads in memory, and batches of patches cut from them with the rays of their pixels."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor

from galatea.cameras import unpack_label
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.carry import VIEWS, MeshTopology, cast_triangles, resolve_cast
from galatea.eg3d.head_cast import HeadCast
from galatea.eg3d.rays import Rays
from galatea.errors import ConfigError
from galatea.morphable.cache import HEAD_VERSION
from galatea.morphable.head import HeadCoefficients, vertex_normals
from galatea.morphable.mouth_light import mouth_shade

PATCH = 32
"""Side of the patches, in rays."""


@dataclass(frozen=True)
class PatchSampling:
    """Where patches lie: `strides` and their probabilities (a stride of 8 sees an image of 256 whole), `detail` is the
    share of patches centred on eyes, brows or mouth, `views` the cameras per head and batch.
    """

    strides: tuple[int, ...] = (1, 2, 4, 8)
    probabilities: tuple[float, ...] = (0.15, 0.35, 0.3, 0.2)
    detail: float = 0.35


@dataclass(frozen=True)
class PatchBatch:
    """Patches of one stride: heads of the batch with `views` cameras each.

    Attributes:
        state: head states (rows of `HeadImages.state_*`).
        rays: rays of the patches' pixels, the views of a head one after the other.
        colour: colours times opacity, [0,1].
        alpha: opacity.
        part: part ids (nearest pixel).
        camera: labels.
        stride: pixels between rays, the same for all.
    """

    state: Int[Tensor, "heads"]
    rays: Rays
    colour: Float[Tensor, "heads_views 3 patch patch"]
    alpha: Float[Tensor, "heads_views 1 patch patch"]
    part: Int[Tensor, "heads_views patch patch"]
    camera: Float[Tensor, "heads_views 25"]
    stride: int

    def to(self, device: torch.device) -> PatchBatch:
        """Return the batch on a device."""
        rays = Rays(self.rays.origins.to(device), self.rays.directions.to(device))
        moved = {name: getattr(self, name).to(device) for name in ("state", "colour", "alpha", "part", "camera")}
        return replace(self, rays=rays, **moved)


class HeadImages:
    """Images of synthetic heads; consecutive images that share identity and expression are views of one head state."""

    def __init__(self, folder: Path, limit: int | None = None) -> None:
        self.folder, self.paths = folder, []  # type: ignore[var-annotated]
        self.arrays: dict[str, np.ndarray] = {}
        self.casts: dict[tuple[int, int], Tensor] = {}
        self.limit = limit
        if not self.refresh():
            raise ConfigError(f"training data: no heads-*.safetensors in {folder}")

    def refresh(self) -> bool:
        """Read shards that were published since; returns whether there were any."""
        new = [path for path in sorted(self.folder.glob("heads-*.safetensors")) if path not in self.paths]
        if self.limit is not None and self.arrays and len(self) >= self.limit:
            return False
        for path in new:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata()
                if int(metadata.get("head_version", HEAD_VERSION)) != HEAD_VERSION:
                    raise ConfigError(
                        f"training data: {path} is of head version {metadata['head_version']}, expected {HEAD_VERSION}"
                    )
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
            for name, rows in arrays.items():
                known = self.arrays.get(name)
                self.arrays[name] = rows if known is None else np.concatenate([known, rows])
            self.paths.append(path)
            self.fields = {name: (a, b) for name, (a, b) in json.loads(metadata["code_fields"]).items()}
            self.parts = list(json.loads(metadata["parts"]))
        if new:
            self._find_states()
        return bool(new)

    def _find_states(self) -> None:
        key = np.concatenate([self.arrays["identity"], self.arrays["expression"]], 1)
        is_first = np.concatenate([[True], (key[1:] != key[:-1]).any(1)])
        self.first = np.flatnonzero(is_first)
        self.count = np.diff(np.append(self.first, len(key)))
        self.detail = [self.parts.index(name) for name in ("eyes", "mouth", "brows")]

    def __len__(self) -> int:
        return len(self.arrays["rgb"])

    @property
    def num_states(self) -> int:
        """Number of head states."""
        return len(self.first)

    @property
    def size(self) -> int:
        """Side of the images."""
        return int(self.arrays["rgb"].shape[1])

    def rows(self, name: str, index: np.ndarray) -> Tensor:
        """Return rows of a label as a tensor."""
        return torch.from_numpy(self.arrays[name][index])

    def cast(self, generator: AnchoredGenerator, states: np.ndarray) -> HeadCast:
        """Return the casts of head states; which triangle is seen where is kept, the rest is computed again."""
        mesh, size = generator.mesh, 2 * generator.config.plane_size
        first, device = self.first[states], generator.mesh.faces.device
        identity, expression = self.rows("identity", first).to(device), self.rows("expression", first).to(device)
        surface = generator.caster.surface(HeadCoefficients(identity, expression))
        vertices = generator.caster.box.enter(surface)
        topology = MeshTopology(mesh.faces, mesh.uv)
        missing = [i for i, state in enumerate(states) if (size, int(state)) not in self.casts]
        if missing:
            seen = [cast_triangles(vertices[missing], mesh.faces, view, size).short() for view in VIEWS]
            for i, found in zip(missing, torch.stack(seen, 1), strict=True):
                self.casts[size, int(states[i])] = found
        triangles = torch.stack([self.casts[size, int(state)] for state in states]).int()
        attributes = torch.cat([vertex_normals(vertices, mesh.faces), mouth_shade(mesh, surface)], -1)
        views = [resolve_cast(triangles[:, i], vertices, attributes, topology, view) for i, view in enumerate(VIEWS)]
        return HeadCast(tuple(views), generator.caster.measure_skull(identity))

    def target(self, index: np.ndarray) -> tuple[Float[Tensor, "n 4 size size"], Int[Tensor, "n size size"]]:
        """Return colour times opacity and opacity, and parts, of whole images."""
        alpha = torch.from_numpy(self.arrays["alpha"][index])[:, None] / 255.0
        rgb = torch.from_numpy(self.arrays["rgb"][index]).permute(0, 3, 1, 2) / 255.0
        return torch.cat([rgb * alpha, alpha], 1), torch.from_numpy(self.arrays["part"][index]).long()

    def patches(
        self, states: np.ndarray, num_views: int, stride: int, sampling: PatchSampling, rng: np.random.Generator
    ) -> PatchBatch:
        """Cut one patch from `num_views` views of each head state."""
        colour, alpha, part, origins, directions, cameras = [], [], [], [], [], []
        side = PATCH * stride
        for state in states:
            start = int(rng.integers(self.count[state]))
            for view in range(start, start + num_views):
                row = int(self.first[state] + view % self.count[state])
                left, top = self._place(row, side, sampling, rng)
                window = slice(top, top + side), slice(left, left + side)
                opacity = torch.from_numpy(self.arrays["alpha"][row][window])[None, None] / 255.0
                rgb = torch.from_numpy(self.arrays["rgb"][row][window]).permute(2, 0, 1)[None] / 255.0
                both = F.avg_pool2d(torch.cat([rgb * opacity, opacity], 1), stride)
                colour.append(both[:, :3])
                alpha.append(both[:, 3:])
                part.append(
                    torch.from_numpy(self.arrays["part"][row][window])[stride // 2 :: stride, stride // 2 :: stride]
                )
                cameras.append(self.rows("camera", np.array([row])))
                rays = patch_rays(cameras[-1], (left, top), stride, self.size)
                origins.append(rays.origins)
                directions.append(rays.directions)
        shape = (len(states), -1, 3)
        rays = Rays(torch.cat(origins).reshape(shape), torch.cat(directions).reshape(shape))
        maps = torch.cat(colour), torch.cat(alpha), torch.stack(part).long(), torch.cat(cameras)
        return PatchBatch(torch.from_numpy(states), rays, *maps, stride)

    def _place(self, row: int, side: int, sampling: PatchSampling, rng: np.random.Generator) -> tuple[int, int]:
        """Choose the patch's corner: around a detail, or around a place on the head."""
        free = self.size - side
        part = self.arrays["part"][row]
        wanted = np.isin(part, self.detail) if rng.random() < sampling.detail else part > 0
        places = np.flatnonzero(wanted)
        if free <= 0 or len(places) == 0:
            return 0, 0
        y, x = divmod(int(rng.choice(places)), self.size)
        left, top = (int(np.clip(at - side // 2 + rng.integers(-side // 4, side // 4 + 1), 0, free)) for at in (x, y))
        return left, top


def patch_rays(label: Float[Tensor, "1 25"], corner: tuple[int, int], stride: int, size: int) -> Rays:
    """Return the rays through the middles of a patch's pixels, `PATCH` x `PATCH`, row by row."""
    cam2world, intrinsics = unpack_label(label)
    steps = (torch.arange(PATCH) + 0.5) * stride
    v, u = torch.meshgrid((corner[1] + steps) / size, (corner[0] + steps) / size, indexing="ij")
    x = (u.flatten() - intrinsics[0, 0, 2]) / intrinsics[0, 0, 0]
    y = (v.flatten() - intrinsics[0, 1, 2]) / intrinsics[0, 1, 1]
    directions = F.normalize(torch.stack([x, y, torch.ones_like(x)], -1) @ cam2world[0, :3, :3].T, dim=-1)
    return Rays(cam2world[:, None, :3, 3].expand(1, PATCH * PATCH, 3), directions[None])
