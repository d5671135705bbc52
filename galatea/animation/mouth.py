"""Inside a mouth: teeth that stay with the skull while the lips move over them, and the dark behind them.

The head mesh has teeth and a tongue, but not this person's: where the photo shows upper teeth, the mesh may well show
its tongue, and detail that is carried along on that surface would break up as soon as the mouth moves. What lies inside
a mouth is therefore taken from the photo as it is, on the arch of the upper teeth, which does not move with any
expression; the mesh only says where the inside is seen, then and now. What the photo did not show stays rendered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import project
from galatea.eg3d.posing import Pose, pose_rays
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.head import HeadModel

_STILL = 0.01
"""World units that the jaw moves a tooth by, at the most, for it to be an upper one."""
_ENVELOPE_STEPS = 4
_FRONT = 0.75
"""Share of the row's half width that the arch is fitted to; teeth farther back are hardly ever seen."""
_LEAST_AREA = 2e-4
"""Share of the picture that the inside of a mouth covers, at least, to show anything of use."""


@dataclass(frozen=True)
class TeethArch:
    """The front of the upper teeth: z = top - bend * (x - middle)^2, world units."""

    middle: Float[Tensor, "batch"]
    top: Float[Tensor, "batch"]
    bend: Float[Tensor, "batch"]

    def meet(
        self, origins: Float[Tensor, "batch rays 3"], directions: Float[Tensor, "batch rays 3"]
    ) -> Float[Tensor, "batch rays 3"]:
        """Return where rays from the front meet the arch, or come closest to it."""
        middle, top, bend = (value[:, None] for value in (self.middle, self.top, self.bend))
        beside = origins[..., 0] - middle
        square = bend * directions[..., 0].square()
        linear = directions[..., 2] + 2 * bend * directions[..., 0] * beside
        constant = origins[..., 2] - top + bend * beside.square()
        root = (linear.square() - 4 * square * constant).clamp_min(0).sqrt()
        distance = 2 * constant / (root - linear).clamp_min(1e-6)
        return origins + distance[..., None] * directions


@dataclass(frozen=True)
class PhotoMouth:
    """The inside of a photo's mouth.

    Attributes:
        layer: premultiplied colour and opacity of the person in the photo.
        inside: 1 where the photo shows the inside of the mouth.
        arch: where that is taken to be.
    """

    layer: Float[Tensor, "1 4 size size"]
    inside: Float[Tensor, "1 1 grid grid"]
    arch: TeethArch

    def seen(
        self, pose: Pose, inside: Float[Tensor, "batch 1 grid grid"], size: int
    ) -> tuple[Float[Tensor, "batch 4 size size"], Float[Tensor, "batch 1 size size"]]:
        """Return the layer as posed views see it, and how surely it belongs there.

        Args:
            pose: the views; their `camera` is the photo's.
            inside: 1 where the views see the inside of the mouth.
            size: of the result.
        """
        grid = inside.shape[-1]
        rays = pose_rays(pose, grid)
        batch = len(rays.origins)
        arch = TeethArch(*(v.expand(batch) for v in (self.arch.middle, self.arch.top, self.arch.bend)))
        image, _ = project(arch.meet(rays.origins.expand_as(rays.directions), rays.directions), pose.camera)
        places = image.view(batch, grid, grid, 2) * 2 - 1
        known = F.avg_pool2d(self.inside, 3, 1, 1).expand(batch, -1, -1, -1)
        weight = F.grid_sample(known, places, align_corners=False) * inside
        fine = F.interpolate(places.permute(0, 3, 1, 2), (size, size), mode="bilinear", align_corners=False)
        layer = self.layer.expand(batch, -1, -1, -1)
        shown = F.grid_sample(layer, fine.permute(0, 2, 3, 1), align_corners=False, padding_mode="border")
        return shown, F.interpolate(weight, (size, size), mode="bilinear", align_corners=False)


def is_open(inside: Float[Tensor, "1 1 grid grid"]) -> bool:
    """Return whether a photo shows anything of use inside the mouth."""
    return float(inside.mean()) > _LEAST_AREA


def teeth_arch(mesh: HeadModel, vertices: Float[Tensor, "batch vertices 3"]) -> TeethArch:
    """Fit the arch to the front of the upper teeth: to the outermost of them, step by step."""
    teeth = torch.zeros(len(mesh.mean), dtype=torch.bool, device=mesh.faces.device)
    teeth[mesh.faces[mesh.part == mesh.part_names.index("teeth")].flatten()] = True
    upper = teeth & (mesh.action_basis[ACTION_INDEX["jawOpen"]].norm(dim=-1) < _STILL)
    x, z = vertices[:, upper, 0].double(), vertices[:, upper, 2].double()
    rows = torch.stack([torch.ones_like(x), x, -x.square()], -1)
    beside = (x - x.mean(1, keepdim=True)).abs()
    is_front = beside < _FRONT * beside.amax(1, keepdim=True)
    weight, solution = is_front.to(x.dtype), torch.zeros_like(rows[:, 0])
    for _ in range(_ENVELOPE_STEPS):
        left = (rows * weight[..., None]).transpose(1, 2) @ rows + 1e-9 * torch.eye(3, dtype=x.dtype, device=x.device)
        solution = torch.linalg.solve(left, (rows * weight[..., None]).transpose(1, 2) @ z[..., None])[..., 0]
        weight = is_front * torch.where(z >= (rows @ solution[..., None])[..., 0], 1.0, 0.02)
    bend = solution[:, 2].clamp_min(1e-3)
    middle = solution[:, 1] / (2 * bend)
    top = solution[:, 0] + bend * middle.square()
    return TeethArch(*(value.to(vertices.dtype) for value in (middle, top, bend)))
