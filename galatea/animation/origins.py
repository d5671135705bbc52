"""Where on the head of the photo, with the photo's expression, the pixels of posed views come from.

Every pixel's surface point is found by the rendered depth, and moved back from the view's expression to the photo's by
the head mesh; what lies on the mesh also has a mirror image there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from galatea.eg3d.posing import Pose, pose_rays
from galatea.eg3d.rays import Rays
from galatea.eg3d.seen_surface import SeenSurface, box_blurred, fill_unseen, see_surface
from galatea.morphable.head import HeadModel
from galatea.morphable.mouth_light import inside_vertices

_OUTLINE_WIDTH = 2
"""Pixels by which the mesh's outline may reach beyond the rendered one."""
_AGREEMENT = 0.03
"""World units up to which the rendered surface and the mesh are taken to be the same skin."""
_BESIDE = 0.04
"""World units in depth up to which neighbours are taken to move together."""
_STILL = 0.01
"""World units by which teeth and tongue may move and still show the photo's detail."""


@dataclass(frozen=True)
class HeadMesh:
    """A head with one or more expressions.

    Attributes:
        faces: triangles.
        vertices: with each expression.
        inside: 1 for vertices inside the mouth.
        skin: 1 for vertices of the skin, 0 for eyes, teeth, ...
        mirror: for each vertex, its mirror image.
    """

    faces: Int[Tensor, "faces 3"]
    vertices: Float[Tensor, "batch vertices 3"]
    inside: Float[Tensor, "vertices 1"]
    skin: Float[Tensor, "vertices 1"]
    mirror: Int[Tensor, "vertices"]

    @classmethod
    def of(cls, model: HeadModel, vertices: Float[Tensor, "batch vertices 3"]) -> HeadMesh:
        """Return the mesh of a head model's vertices."""
        is_skin = model.part == model.part_names.index("skin")
        skin = torch.ones_like(model.mean[:, :1]).index_fill(0, model.faces[~is_skin].flatten(), 0.0)
        return cls(model.faces, vertices, inside_vertices(model), skin, model.mirror_vertices)


@dataclass(frozen=True)
class Origin:
    """Where on the head of the photo, with its expression, the pixels of views come from.

    Attributes:
        points: world space.
        on_skin: how surely they lie on the mesh, 0..1.
        still: 0 for what has moved otherwise than the mesh says.
        alike: 0 for what its mirror image tells nothing about: eyes look the same way, not mirrored ways.
        mirrored: the mirror images of the points; None without a mesh.
        inside: 1 where the views see the inside of the mouth; None without a mesh.
    """

    points: Float[Tensor, "batch 3 grid grid"]
    on_skin: Float[Tensor, "batch 1 grid grid"]
    still: Float[Tensor, "batch 1 grid grid"]
    alike: Float[Tensor, "batch 1 grid grid"]
    mirrored: Float[Tensor, "batch 3 grid grid"] | None = None
    inside: Float[Tensor, "batch 1 grid grid"] | None = None


def find_origin(
    pose: Pose, depth: Float[Tensor, "batch 1 grid grid"], mesh: HeadMesh | None, photo_mesh: HeadMesh | None
) -> Origin:
    """Return where pixels of views come from.

    Args:
        pose: the views; their `camera` is the photo's.
        depth: rendered distance along the ray, filled where nothing is opaque.
        mesh: the head with each view's expression; None for generators without one.
        photo_mesh: the head with the photo's expression.
    """
    rays = pose_rays(pose, depth.shape[-1])
    points = ray_points(rays, depth)
    if mesh is None or photo_mesh is None:
        return Origin(points, torch.zeros_like(depth), torch.ones_like(depth), torch.ones_like(depth))
    loose = ray_points(rays, box_blurred(depth, max(1, depth.shape[-1] // 32)))
    photo = photo_mesh.vertices
    values = torch.cat([photo, photo[:, mesh.mirror], mesh.inside[None], mesh.skin[None]], -1)
    values = torch.cat([mesh.vertices, values.expand(len(mesh.vertices), -1, -1)], -1)
    seen = see_surface(mesh.vertices, mesh.faces, values, pose, depth.shape[-1])
    points, on_skin, motion = _unexpressed(points, loose, seen, pose)
    _, _, mirrored, inside, skin = torch.split(seen.values, [3, 3, 3, 1, 1], 1)
    inside = is_inside(inside)
    # Teeth and tongue of the mesh do not move as this person's do: what has moved, or is next to it, shows nothing.
    is_moved = 1 - torch.exp(-(motion.norm(dim=1, keepdim=True) / _STILL).square())
    still = 1 - F.max_pool2d(inside * is_moved, 3, 1, 1)
    across = points * points.new_tensor([-1.0, 1.0, 1.0])[:, None, None]
    mirrored = torch.lerp(across, mirrored, on_skin)
    return Origin(points, on_skin, still, 1 - on_skin * (1 - skin), mirrored, inside)


def _unexpressed(
    points: Float[Tensor, "batch 3 grid grid"],
    loose: Float[Tensor, "batch 3 grid grid"],
    seen: SeenSurface,
    pose: Pose,
) -> tuple[Tensor, Tensor, Tensor]:
    """Move points back to where they were in the photo's expression.

    Also returns how surely they lie on the mesh, and how the mesh moves back there. The first values of `seen` are its
    position now and in the photo's expression.

    Points near the mesh are put on it; the others (hair, clothes) are taken from `loose`, their smooth surface: the
    rendered depth of hair is uneven, and would make its strands waver.
    """
    position, source = seen.values[:, :3], seen.values[:, 3:6]
    origin = pose_rays(pose, 1).origins.transpose(1, 2)[..., None]
    depth, mesh_depth = ((where - origin).norm(dim=1, keepdim=True) for where in (points, position))
    on_skin = seen.is_hit * (2 - (points - position).norm(dim=1, keepdim=True) / _AGREEMENT).clamp(0, 1)
    # The mesh's outline may reach a little beyond the rendered one: what is seen there lies behind, and moves with
    # what is beside it at its own depth.
    is_behind = seen.is_hit * (depth > mesh_depth + _AGREEMENT).to(depth.dtype)
    known = seen.is_hit * (1 - is_behind)
    motion, is_beside = motion_from_beside((source - position) * known, known, is_behind, depth)
    moved = fill_unseen(motion, torch.maximum(known, is_beside))
    place = loose + on_skin * (position - loose) + is_beside * (points - loose)
    return place + moved, on_skin, source - position


def is_inside(share: Float[Tensor, "batch 1 grid grid"]) -> Float[Tensor, "batch 1 grid grid"]:
    """Return 1 where most of what a pixel sees is the inside of the mouth."""
    return (share > 0.5).to(share.dtype)


def motion_from_beside(
    motion: Float[Tensor, "batch 3 grid grid"],
    known: Float[Tensor, "batch 1 grid grid"],
    wanted: Float[Tensor, "batch 1 grid grid"],
    depth: Float[Tensor, "batch 1 grid grid"],
) -> tuple[Float[Tensor, "batch 3 grid grid"], Float[Tensor, "batch 1 grid grid"]]:
    """Give wanted pixels the motion of a neighbour at about their depth; also say which got one."""
    found = torch.zeros_like(wanted)
    for _ in range(_OUTLINE_WIDTH):
        has_any = torch.maximum(known, found)
        for axis, step in ((2, 1), (2, -1), (3, 1), (3, -1)):
            beside, beside_depth, is_known = (maps.roll(step, axis) for maps in (motion, depth, has_any))
            taken = wanted * (1 - found) * is_known * ((depth - beside_depth).abs() < _BESIDE).to(depth.dtype)
            motion = torch.lerp(motion, beside, taken)
            found = found + taken
    return motion, found


def ray_points(rays: Rays, depth: Float[Tensor, "batch 1 grid grid"]) -> Float[Tensor, "batch 3 grid grid"]:
    """Return the points at a distance along rays."""
    points = rays.origins + depth.flatten(2).transpose(1, 2) * rays.directions
    shaped: Tensor = points.transpose(1, 2).reshape(depth.shape[0], 3, *depth.shape[2:])
    return shaped
