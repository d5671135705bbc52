"""Carrying the photo's own fine detail to new views and expressions.

A generator's rendering of an inverted portrait misses pores, strands and the exact edge of the hair. The difference
between the photo and the rendering at the photo's own view is therefore kept, and every pixel of a new view looks up
the place in the photo where its surface point was seen: the point is found by the rendered depth, and moved back
from the new expression to the photo's by the head mesh. Lin et al. 2022 (arXiv 2203.13441, section 3.3) lift the
photo's pixels to 3D in the same way to blend hair and background; we carry differences, so that where the photo saw
nothing (the far cheek, the inside of the mouth) the generator's own rendering remains, without a seam where both agree.

Colours here are premultiplied by opacity and run from 0 to 1; a layer has four channels, RGB and opacity.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from galatea.animation.posing import Pose, pose_rays
from galatea.animation.surface import box_blurred, fill_unseen, see_surface
from galatea.cameras import project, unpack_label
from galatea.eg3d.rays import Rays

_MESH_TOLERANCE = 0.012
"""World units (4 mm on a real head) by which a mesh point may lie behind the visible mesh and still count as seen."""
_DEPTH_TOLERANCE = 0.04
"""The same for rendered depth, which is coarser."""
_OUTLINE_WIDTH = 2
"""Pixels of the look-up's grid by which the mesh's outline may reach beyond the rendered one."""
_FAR = 9.0
_AGREEMENT = 0.03
"""Up to this distance the rendered surface and the mesh are taken to be the same skin."""
_LEAST_AREA = 0.25
"""Least area of the photo, in pixels, that a pixel of the view may be stretched from: less was seen too obliquely (a
far cheek) or is too compressed (an open eye's lid) to be of use."""

_STILL = 0.01
"""World units by which teeth and tongue may move and still show the photo's detail."""
_JUMP = 8.0
"""Pixels of the look-up's grid by which neighbours may look apart: more, and they lie on different surfaces."""


@dataclass(frozen=True)
class HeadMesh:
    """Triangles of the head, its vertices with the photo's expression, and which of them lie inside the mouth."""

    faces: Int[Tensor, "faces 3"]
    vertices: Float[Tensor, "1 vertices 3"]
    inside: Float[Tensor, "vertices 1"]


@dataclass(frozen=True)
class PhotoDetail:
    """What the photo shows beyond the rendering of its own view.

    Attributes:
        layer: photo layer minus rendered layer, at the photo's size.
        camera: the photo's camera.
        depth: rendered distance along the ray, filled where nothing is opaque.
        smooth_depth: the same, blurred: where loose hair is taken to be.
        alpha: rendered opacity.
        mesh: the head, None for generators without one.
        mesh_depth: distance to the visible mesh in the photo's view, far where there is none; None without a mesh.
        inside: 1 where the photo's view of the mesh shows the inside of the mouth; None without a mesh.
    """

    layer: Float[Tensor, "1 4 size size"]
    camera: Float[Tensor, "1 25"]
    depth: Float[Tensor, "1 1 grid grid"]
    smooth_depth: Float[Tensor, "1 1 grid grid"]
    alpha: Float[Tensor, "1 1 grid grid"]
    mesh: HeadMesh | None = None
    mesh_depth: Float[Tensor, "1 1 grid grid"] | None = None
    inside: Float[Tensor, "1 1 grid grid"] | None = None


@dataclass(frozen=True)
class CarriedDetail:
    """Detail as posed views see it.

    Attributes:
        layer: what to add to their rendered layers.
        inside: 1 where they see the inside of the mouth; None without a mesh.
    """

    layer: Float[Tensor, "batch 4 size size"]
    inside: Float[Tensor, "batch 1 grid grid"] | None


def make_detail(
    layer: Float[Tensor, "1 4 size size"],
    camera: Float[Tensor, "1 25"],
    depth: Float[Tensor, "1 1 r r"],
    alpha: Float[Tensor, "1 1 r r"],
    mesh: HeadMesh | None = None,
    grid: int = 256,
) -> PhotoDetail:
    """Prepare the difference layer of one photo for look-ups.

    Args:
        layer: photo layer minus rendered layer (see `composite.photo_layer`).
        camera: the photo's camera.
        depth: rendered distance along the ray.
        alpha: rendered opacity, of the size of `depth`.
        mesh: the head with the photo's expression.
        grid: size of the maps in which correspondences are computed.
    """
    depth = _resized(fill_unseen(depth, (alpha > 0.5).to(depth.dtype)), grid)
    mesh_depth = inside = None
    if mesh is not None:
        values = torch.cat([_distance(mesh.vertices, camera), mesh.inside[None]], -1)
        seen = see_surface(mesh.vertices, mesh.faces, values, Pose.of_photo(camera), grid)
        mesh_depth = torch.where(seen.is_hit > 0, seen.values[:, :1], seen.values.new_tensor(_FAR))
        inside = _is_inside(seen.values[:, 1:])
    smooth_depth = depth if mesh is None else box_blurred(depth, max(1, depth.shape[-1] // 32))
    return PhotoDetail(layer, camera, depth, smooth_depth, _resized(alpha, grid), mesh, mesh_depth, inside)


def carry_detail(
    detail: PhotoDetail,
    pose: Pose,
    depth: Float[Tensor, "batch 1 r r"],
    alpha: Float[Tensor, "batch 1 r r"],
    vertices: Float[Tensor, "batch vertices 3"] | None = None,
) -> CarriedDetail:
    """Return the difference layer as the posed views see it.

    Args:
        detail: of one photo.
        pose: the views; their `camera` is the photo's.
        depth: rendered distance along the ray of the views.
        alpha: rendered opacity, of the size of `depth`.
        vertices: the head mesh with each view's expression; needed when the detail has a mesh.
    """
    grid = detail.depth.shape[-1]
    depth = _resized(fill_unseen(depth, (alpha > 0.5).to(depth.dtype)), grid)
    rays = pose_rays(pose, grid)
    points = _points(rays, depth)
    on_skin, inside, still = torch.zeros_like(depth), None, torch.ones_like(depth)
    if detail.mesh is not None and vertices is not None:
        loose = _points(rays, box_blurred(depth, max(1, depth.shape[-1] // 32)))
        points, on_skin, inside, still = _unexpressed(points, loose, detail.mesh, vertices, pose)
    camera = detail.camera.expand(points.shape[0], 25)
    image, _ = project(points.flatten(2).transpose(1, 2), camera)
    lookup = image.transpose(1, 2).reshape(-1, 2, grid, grid) * 2 - 1
    weight = _visibility(detail, points, lookup, on_skin) * _scale_weight(lookup) * still
    # Beyond the silhouette only what also was beyond the photo's rendered silhouette (loose hair) has a place.
    was_opaque = _look_up(detail.alpha.expand(points.shape[0], -1, -1, -1), lookup)
    weight = weight * (_resized(alpha, grid) + 1 - was_opaque).clamp(0, 1)
    size = detail.layer.shape[-1]
    # Closed: on the line where one surface ends in front of another, depth and area of single pixels mean nothing.
    weight = -F.max_pool2d(-F.max_pool2d(weight, 3, 1, 1), 3, 1, 1)
    # Softened, so that a surface does not fray where it just leaves the photo's sight; never raised where the photo
    # shows something else.
    weight = torch.minimum(weight, F.avg_pool2d(weight, 5, 1, 2, count_include_pad=False))
    lookup, weight = enlarge_lookup(lookup, size), _resized(weight, size)
    carried = _look_up(detail.layer.expand(lookup.shape[0], -1, -1, -1), lookup)
    return CarriedDetail(carried * weight, inside)


def _unexpressed(
    points: Float[Tensor, "batch 3 grid grid"],
    loose: Float[Tensor, "batch 3 grid grid"],
    mesh: HeadMesh,
    vertices: Float[Tensor, "batch vertices 3"],
    pose: Pose,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Move points back to where they were in the photo's expression.

    Also returns how surely they lie on the mesh, whether they are inside the mouth, and 0 where they are (or next to
    it) and have moved: teeth and tongue of the mesh do not move as this person's do.

    Points near the mesh are put on it; the others (hair, clothes) are taken from `loose`, their smooth surface: the
    rendered depth of hair is uneven, and would make its strands waver.
    """
    grid = points.shape[-1]
    resting = mesh.vertices.expand_as(vertices)
    values = torch.cat([vertices, resting, mesh.inside.expand(len(vertices), -1, -1)], -1)
    seen = see_surface(vertices, mesh.faces, values, pose, grid)
    position, source, inside = seen.values[:, :3], seen.values[:, 3:6], _is_inside(seen.values[:, 6:])
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
    is_moved = 1 - torch.exp(-((source - position).norm(dim=1, keepdim=True) / _STILL).square())
    return place + moved, on_skin, inside, 1 - F.max_pool2d(inside * is_moved, 3, 1, 1)


def _is_inside(share: Float[Tensor, "batch 1 grid grid"]) -> Float[Tensor, "batch 1 grid grid"]:
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
            taken = wanted * (1 - found) * is_known * ((depth - beside_depth).abs() < _DEPTH_TOLERANCE).to(depth.dtype)
            motion = torch.lerp(motion, beside, taken)
            found = found + taken
    return motion, found


def _visibility(
    detail: PhotoDetail, points: Float[Tensor, "batch 3 grid grid"], lookup: Tensor, on_skin: Tensor
) -> Float[Tensor, "batch 1 grid grid"]:
    """Return how surely the photo saw the points: not behind what it shows there, and inside the frame."""
    batch = points.shape[0]
    origin = unpack_label(detail.camera)[0][:, :3, 3].view(1, 3, 1, 1)
    distance = (points - origin).norm(dim=1, keepdim=True)
    shown = _look_up(torch.cat([detail.depth, detail.smooth_depth], 1).expand(batch, -1, -1, -1), lookup)
    visible = (2 - (distance - shown).abs().amin(1, keepdim=True) / _DEPTH_TOLERANCE).clamp(0, 1)
    if detail.mesh_depth is not None:
        # Not interpolated: between a lip and the teeth behind it, a mean would make both visible.
        nearest = _look_up(detail.mesh_depth.expand(batch, -1, -1, -1), lookup, "nearest")
        unhidden = (2 - (distance - nearest) / _MESH_TOLERANCE).clamp(0, 1)
        visible = visible * (1 - on_skin + on_skin * unhidden)
    inside = (lookup.abs().amax(1, keepdim=True) <= 1).to(visible.dtype)
    weight: Tensor = visible * inside
    return weight


def _scale_weight(lookup: Float[Tensor, "batch 2 grid grid"]) -> Float[Tensor, "batch 1 grid grid"]:
    """Return 0 where many pixels of the view would share one pixel of the photo (a closing lid), 1 elsewhere."""
    grid = lookup.shape[-1]
    across = F.pad(lookup[..., 1:] - lookup[..., :-1], (0, 1, 0, 0), mode="replicate") * grid / 2
    down = F.pad(lookup[..., 1:, :] - lookup[..., :-1, :], (0, 0, 0, 1), mode="replicate") * grid / 2
    area = across[:, :1] * down[:, 1:] - across[:, 1:] * down[:, :1]
    return (area / _LEAST_AREA - 1).clamp(0, 1)


def enlarge_lookup(lookup: Float[Tensor, "batch 2 grid grid"], size: int) -> Float[Tensor, "batch 2 size size"]:
    """Enlarge a look-up smoothly within surfaces, and without inventing places between two of them."""
    grid = lookup.shape[-1]
    if grid == size:
        return lookup
    widest = F.max_pool2d(lookup, 3, 1, 1) + F.max_pool2d(-lookup, 3, 1, 1)
    is_jump = (widest.amax(1, keepdim=True) * (grid / 2) > _JUMP).to(lookup.dtype)
    is_jump = F.interpolate(is_jump, (size, size), mode="nearest")
    nearest = F.interpolate(lookup, (size, size), mode="nearest")
    return torch.where(is_jump > 0, nearest, _resized(lookup, size))


def _points(rays: Rays, depth: Float[Tensor, "batch 1 grid grid"]) -> Float[Tensor, "batch 3 grid grid"]:
    points = rays.origins + depth.flatten(2).transpose(1, 2) * rays.directions
    shaped: Tensor = points.transpose(1, 2).reshape(depth.shape[0], 3, *depth.shape[2:])
    return shaped


def _distance(vertices: Float[Tensor, "batch n 3"], camera: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch n 1"]:
    distance: Tensor = (vertices - unpack_label(camera)[0][:, None, :3, 3]).norm(dim=-1, keepdim=True)
    return distance


def _look_up(maps: Tensor, lookup: Float[Tensor, "batch 2 h w"], mode: str = "bilinear") -> Tensor:
    places = lookup.permute(0, 2, 3, 1)
    looked_up: Tensor = F.grid_sample(maps, places, mode=mode, align_corners=False, padding_mode="border")
    return looked_up


def _resized(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
