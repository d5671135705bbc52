"""Where hair is in space: occupancy of MakeHuman's hair styles around the head, to supervise density directly.

Pictures say little about a style per step; the hair's own geometry says it at every point. Volumes are made once on the
average head and follow other heads as static planes do, by the extents of the skull.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.head_cast import HeadCast
from galatea.eg3d.surface import head_distance
from galatea.eg3d.view_planes import SurfaceTables
from training.heads.assets import Assets, Proxy, load_assets

GRID = 128
"""Cells per side of a volume (the plane box)."""
NUM_SURFACE_POINTS = 200_000
OPAQUE = 0.4
"""Opacity of a hair card's texel from which it counts."""
STEP = 0.04
"""Length (half boxes) over which hair should be opaque."""
OUTSIDE = 0.0105
"""Points closer to the head than this (half boxes), or inside, are left to the mesh."""


class HairVolumes:
    """Occupancy of every hair style (the first is no hair), in the order of the code's `hair_style` field.

    Args:
        generator: for its box, its head model and the average skull.
        assets: folder of MakeHuman's system assets.
    """

    def __init__(self, generator: AnchoredGenerator, assets: Path) -> None:
        mesh, self.box = generator.mesh, generator.config.box
        loaded = load_assets(assets, mesh.base_index.numpy())
        vertices = mesh.mean.numpy()
        rng = np.random.default_rng(0)
        volumes = [torch.zeros(GRID, GRID, GRID)]
        for name in sorted(loaded.hairs):
            points = torch.from_numpy(_card_points(loaded.hairs[name], name, loaded, vertices, rng)).float()
            volumes.append(self._occupancy(points))
        self.volumes = torch.stack(volumes)[:, None]

    def _occupancy(self, points: Float[Tensor, "n 3"]) -> Float[Tensor, "grid grid grid"]:
        """Return 1 in cells that hold hair or lie between cells that do, along (z, y, x)."""
        q = self.box.enter(points)
        cell = ((q * 0.5 + 0.5) * GRID).long()
        cell = cell[((cell >= 0) & (cell < GRID)).all(1)]
        volume = torch.zeros(GRID, GRID, GRID)
        volume[cell[:, 2], cell[:, 1], cell[:, 0]] = 1
        grown = F.max_pool3d(volume[None, None], 3, 1, 1)
        return -F.max_pool3d(-grown, 3, 1, 1)[0, 0]

    def occupancy(
        self, generator: AnchoredGenerator, cast: HeadCast, style: Tensor, q: Float[Tensor, "batch n 3"]
    ) -> Float[Tensor, "batch n"]:
        """Return how much hair of each head's style is at points (half boxes)."""
        template = generator.template_skull
        scale = (template[:, 1] / cast.skull[..., 1])[:, None]
        canonical = template[:, 0] + (q - cast.skull[:, None, :, 0]) * scale
        grid = canonical[:, :, None, None]
        self.volumes = self.volumes.to(q.device)
        found = F.grid_sample(self.volumes[style], grid, align_corners=False)
        return found.view(q.shape[:2])

    def sample(
        self, generator: AnchoredGenerator, cast: HeadCast, style: Tensor, num_points: int, noise: torch.Generator
    ) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n"]]:
        """Return random points of the box, half of them in or near hair, and how much hair is there."""
        q = torch.rand(cast.batch_size, 4 * num_points, 3, generator=noise, device=noise.device) * 2 - 1
        wanted = self.occupancy(generator, cast, style, q)
        chosen = torch.cat([wanted[:, num_points:].topk(num_points // 2).indices + num_points], 1)
        chosen = torch.cat([chosen, torch.arange(num_points // 2, device=q.device).expand(cast.batch_size, -1)], 1)
        return q.gather(1, chosen[..., None].expand(-1, -1, 3)), wanted.gather(1, chosen)

    def loss(
        self,
        generator: AnchoredGenerator,
        tables: SurfaceTables,
        points: tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n"]],
        colour: Float[Tensor, "batch n 3"],
    ) -> tuple[Tensor, Tensor]:
        """Return how far opacity over a short step is from the hair's, and colour from the hair's lit `colour`."""
        q, wanted = points
        with torch.no_grad():
            is_free = (head_distance(tables, q) > OUTSIDE).float()
        values, density = generator.decoder(tables, q)
        found = 1 - torch.exp(-density.float() * STEP)
        error = (found - wanted).abs() + (found - wanted).square()
        opacity_loss = (is_free * error).sum() / is_free.sum().clamp_min(1)
        weight = (is_free * wanted)[..., None]
        difference = (values[..., :3].float() - colour).abs()
        return opacity_loss, (weight * difference).sum() / (3 * weight.sum()).clamp_min(1)


def _card_points(
    hair: Proxy, name: str, assets: Assets, vertices: Float[np.ndarray, "v 3"], rng: np.random.Generator
) -> Float[np.ndarray, "n 3"]:
    """Return random points on a style's cards where they are opaque."""
    placed = hair.fit(vertices)
    corners = placed[hair.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    triangle = rng.choice(len(area), NUM_SURFACE_POINTS, p=area / area.sum())
    weights = rng.dirichlet((1.0, 1.0, 1.0), NUM_SURFACE_POINTS)
    points = (corners[triangle] * weights[..., None]).sum(1)
    uv = (hair.uv[triangle] * weights[..., None]).sum(1) % 1.0
    texels = assets.texels[assets.texture[name]]
    side = texels.shape[0]
    opacity = texels[((1 - uv[:, 1]) * side).astype(int) % side, (uv[:, 0] * side).astype(int) % side, 3] / 255.0
    return np.asarray(points[opacity > OPAQUE])
