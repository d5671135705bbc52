"""Carrying the photo's own fine detail to new views and expressions.

A generator's rendering of an inverted portrait misses pores, strands and the exact edge of the hair. The difference
between the photo and the rendering at the photo's own view is therefore kept, and every pixel of a new view looks up
the place in the photo where its surface point was seen: the point is found by the rendered depth, and moved back
from the new expression to the photo's by the head mesh. Lin et al. 2022 (arXiv 2203.13441, section 3.3) lift the
photo's pixels to 3D in the same way to blend hair and background; we carry differences, so that where the photo saw
nothing (the inside of the mouth, the back) the generator's own rendering remains, without a seam where both agree. Skin
and hair that the photo did not see get the fine detail of their mirror image.

Colours here are premultiplied by opacity and run from 0 to 1; a layer has four channels, RGB and opacity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.animation.origins import HeadMesh, find_origin, is_inside
from galatea.cameras import project, unpack_label
from galatea.eg3d.posing import Pose
from galatea.eg3d.seen_surface import box_blurred, fill_unseen, see_surface

_MESH_TOLERANCE = 0.012
"""World units (4 mm on a real head) by which a mesh point may lie behind the visible mesh and still count as seen."""
_DEPTH_TOLERANCE = 0.04
"""The same for rendered depth, which is coarser."""
_FAR = 9.0
_LEAST_AREA, _FULL_AREA = 0.35, 0.6
"""Area of the photo, in pixels, that a pixel of the view is stretched from: below the first it was seen too obliquely
(a far cheek) or is too compressed (an open eye's lid) to be of use, above the second it is of full use."""
_FINE = 24
"""Detail of this share of the photo or smaller also tells about the other half of a head."""
_SOLID = 0.8
"""Opacity below which an outline is too near to be mirrored, and cracks are none."""
_LEAST_OPAQUE = 0.15
"""Opacity up to which a line is a gap, not a crack."""
_GRID = 256
"""Size of the maps in which correspondences are computed."""
_AROUND = 1 / 48
"""Share of the picture around a place of which the mean opacity says how far an outline is."""
_APART, _TOGETHER = 0.5, 0.9
"""Loose hair belongs to an outline that is as near to it in the view as in the photo: at the first ratio of the mean
opacities around it nothing of it is shown, at the second all."""
_EDGE, _SURE = 0.75, 0.95
"""The photo tells of a place if the outline was as far from it as it is in the view: at the first ratio of the mean
opacities around it nothing, at the second all."""
_JUMP = 8.0
"""Pixels of the look-up's grid by which neighbours may look apart: more, and they lie on different surfaces."""


@dataclass(frozen=True)
class PhotoDetail:
    """What the photo shows beyond the rendering of its own view.

    Attributes:
        layer: photo layer minus rendered layer with its outline cut to the photo's, at the photo's size. What is added
            to that differs from the rendering where it was edited, and its outline is cut likewise.
        fine: its colours, but for what changes slowly across the photo, such as light.
        camera: the photo's camera.
        depth: rendered distance along the ray, filled where nothing is opaque.
        smooth_depth: the same, blurred: where loose hair is taken to be.
        alpha: rendered opacity.
        around: its mean around each place.
        mesh: the head with the photo's expression, None for generators without one.
        mesh_depth: distance to the visible mesh in the photo's view, far where there is none; None without a mesh.
        inside: 1 where the photo's view of the mesh shows the inside of the mouth; None without a mesh.
    """

    layer: Float[Tensor, "1 4 size size"]
    fine: Float[Tensor, "1 3 size size"]
    camera: Float[Tensor, "1 25"]
    depth: Float[Tensor, "1 1 grid grid"]
    smooth_depth: Float[Tensor, "1 1 grid grid"]
    alpha: Float[Tensor, "1 1 grid grid"]
    around: Float[Tensor, "1 1 grid grid"]
    mesh: HeadMesh | None = None
    mesh_depth: Float[Tensor, "1 1 grid grid"] | None = None
    inside: Float[Tensor, "1 1 grid grid"] | None = None


@dataclass(frozen=True)
class CarriedDetail:
    """Detail as posed views see it.

    Attributes:
        layer: what to add to their rendered layers.
        inside: 1 where they see the inside of the mouth; None without a mesh.
        seams: 1 next to lines where what is seen side by side lay apart in the photo.
    """

    layer: Float[Tensor, "batch 4 size size"]
    inside: Float[Tensor, "batch 1 grid grid"] | None
    seams: Float[Tensor, "batch 1 size size"]

    def added_to(
        self, rendered: Float[Tensor, "batch 4 size size"], share: float
    ) -> Float[Tensor, "batch 4 size size"]:
        """Return rendered layers with a share (0..1) of the detail, smooth across seams, which are known coarsely."""
        alpha = rendered[:, 3:] + share * self.layer[:, 3:]
        # What the photo showed beside the rendering may come to lie on it: together no more than opaque.
        whole = torch.cat([cut_colours(rendered, alpha) + share * self.layer[:, :3], alpha], 1) / alpha.clamp_min(1)
        return without_cracks(torch.lerp(whole, F.avg_pool2d(whole, 5, 1, 2, count_include_pad=False), self.seams))


def without_cracks(layer: Float[Tensor, "batch 4 size size"]) -> Float[Tensor, "batch 4 size size"]:
    """Return a layer opaque where only a thin line in what is opaque lets the background through.

    Where the rendering ends and what the photo showed beyond it begins is known to a pixel of the look-up's grid.
    """
    alpha = layer[:, 3:].clamp(0, 1)
    reach = math.ceil(layer.shape[-1] / _GRID)
    closed = -F.max_pool2d(-F.max_pool2d(alpha, 2 * reach + 1, 1, reach), 2 * reach + 1, 1, reach)
    is_crack = ((closed - _SOLID) / (1 - _SOLID)).clamp(0, 1) * (alpha / _LEAST_OPAQUE - 1).clamp(0, 1)
    # Where nothing is opaque, colours are what the photo's background has beyond the cleared one.
    return layer * (1 + is_crack * (closed / alpha.clamp_min(_LEAST_OPAQUE) - 1).clamp_min(0))


def cut_colours(
    layer: Float[Tensor, "batch 4 size size"], alpha: Float[Tensor, "batch 1 size size"]
) -> Float[Tensor, "batch 3 size size"]:
    """Return a layer's colours where no more than `alpha` of it is opaque."""
    return layer[:, :3] * (alpha / layer[:, 3:].clamp_min(1e-3)).clamp(0, 1)


def make_detail(
    person: Float[Tensor, "1 4 size size"],
    rendered: Float[Tensor, "1 4 size size"],
    camera: Float[Tensor, "1 25"],
    depth: Float[Tensor, "1 1 r r"],
    alpha: Float[Tensor, "1 1 r r"],
    mesh: HeadMesh | None = None,
    grid: int = _GRID,
) -> PhotoDetail:
    """Prepare the difference layer of one photo for look-ups.

    Args:
        person: photo layer (see `composite.photo_layer`).
        rendered: layer rendered in the photo's view.
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
        inside = is_inside(seen.values[:, 1:2])
    smooth_depth = depth if mesh is None else box_blurred(depth, max(1, depth.shape[-1] // 32))
    cut = torch.cat([cut_colours(rendered, person[:, 3:]), rendered[:, 3:]], 1)
    layer = person - cut
    fine = layer[:, :3] - box_blurred(layer[:, :3], max(1, layer.shape[-1] // _FINE))
    alpha = _resized(alpha, grid)
    return PhotoDetail(layer, fine, camera, depth, smooth_depth, alpha, _around(alpha), mesh, mesh_depth, inside)


def carry_detail(
    detail: PhotoDetail,
    pose: Pose,
    depth: Float[Tensor, "batch 1 r r"],
    alpha: Float[Tensor, "batch 1 r r"],
    mesh: HeadMesh | None = None,
) -> CarriedDetail:
    """Return the difference layer as the posed views see it.

    Args:
        detail: of one photo.
        pose: the views; their `camera` is the photo's.
        depth: rendered distance along the ray of the views.
        alpha: rendered opacity, of the size of `depth`.
        mesh: the head with each view's expression; needed when the detail has a mesh.
    """
    grid = detail.depth.shape[-1]
    depth, alpha = _resized(fill_unseen(depth, (alpha > 0.5).to(depth.dtype)), grid), _resized(alpha, grid)
    origin = find_origin(pose, depth, mesh, detail.mesh)
    seen = _look_back(detail, origin.points, origin.on_skin)
    # Beyond the silhouette only what also was beyond the photo's rendered silhouette, and as near to it, has a place.
    was_around = _look_up(detail.around.expand(len(alpha), -1, -1, -1), seen.lookup)
    around = _around(alpha)
    together = (around / was_around.clamp_min(1e-2) - _APART) / (_TOGETHER - _APART)
    loose = (1 - seen.was_opaque) * together.clamp(0, 1)
    # What was next to the outline and no longer is may be what the photo shows behind the person.
    sure = (was_around / around.clamp_min(1e-2) - _EDGE) / (_SURE - _EDGE)
    carried, weight = seen.show(detail.layer, origin.still * (alpha + loose).clamp(0, 1) * sure.clamp(0, 1))
    if origin.mirrored is not None:
        other = _look_back(detail, origin.mirrored, origin.on_skin, is_mirrored=True)
        solid = (torch.minimum(alpha * origin.alike, other.was_opaque) - _SOLID) / (1 - _SOLID)
        fine, _ = other.show(detail.fine, solid.clamp(0, 1))
        # Opacity stays: hair ends elsewhere on the other side.
        carried = carried + F.pad((1 - weight) * fine, (0, 0, 0, 0, 0, 1))
    return CarriedDetail(carried, origin.inside, _nearest(seen.jumps, carried.shape[-1]))


@dataclass(frozen=True)
class _LookBack:
    """What the photo shows at points of views.

    Attributes:
        lookup: places in the photo, for `grid_sample`.
        weight: how surely the photo saw the points, and finely enough.
        was_opaque: opacity that the photo's rendering has there.
        jumps: 1 where neighbours look at different surfaces.
    """

    lookup: Float[Tensor, "batch 2 grid grid"]
    weight: Float[Tensor, "batch 1 grid grid"]
    was_opaque: Float[Tensor, "batch 1 grid grid"]
    jumps: Float[Tensor, "batch 1 grid grid"]

    def show(
        self, maps: Float[Tensor, "1 channels size size"], share: Float[Tensor, "batch 1 grid grid"]
    ) -> tuple[Float[Tensor, "batch channels size size"], Float[Tensor, "batch 1 size size"]]:
        """Return a share of what maps of the photo hold at the places, and the weight that it has."""
        size = maps.shape[-1]
        places = enlarge_lookup(self.lookup, _nearest(self.jumps, size))
        weight = _resized(_softened(self.weight * share), size)
        return weight * _look_up(maps.expand(len(places), -1, -1, -1), places), weight


def _look_back(
    detail: PhotoDetail,
    points: Float[Tensor, "batch 3 grid grid"],
    on_skin: Float[Tensor, "batch 1 grid grid"],
    is_mirrored: bool = False,
) -> _LookBack:
    """Look for points, with the photo's expression, in the photo; mirror images run the other way there."""
    lookup = _photo_places(detail, points)
    onwards = lookup * lookup.new_tensor([-1.0, 1.0])[:, None, None] if is_mirrored else lookup
    weight = _visibility(detail, points, lookup, on_skin) * _scale_weight(onwards)
    was_opaque = _look_up(detail.alpha.expand(len(lookup), -1, -1, -1), lookup)
    return _LookBack(lookup, weight, was_opaque, find_jumps(lookup))


def _around(alpha: Float[Tensor, "batch 1 grid grid"]) -> Float[Tensor, "batch 1 grid grid"]:
    """Return the mean opacity around each place."""
    return box_blurred(alpha, max(1, round(alpha.shape[-1] * _AROUND)))


def _photo_places(
    detail: PhotoDetail, points: Float[Tensor, "batch 3 grid grid"]
) -> Float[Tensor, "batch 2 grid grid"]:
    """Return where the photo shows points, for `grid_sample`."""
    image, _ = project(points.flatten(2).transpose(1, 2), detail.camera.expand(points.shape[0], 25))
    return image.transpose(1, 2).reshape(-1, 2, *points.shape[2:]) * 2 - 1


def _softened(weight: Float[Tensor, "batch 1 grid grid"]) -> Float[Tensor, "batch 1 grid grid"]:
    """Return weights without gaps and hard ends.

    Closed: on the line where one surface ends in front of another, depth and area of single pixels mean nothing.
    Softened, so that a surface does not fray where it just leaves the photo's sight; never raised where the photo
    shows something else.
    """
    weight = -F.max_pool2d(-F.max_pool2d(weight, 3, 1, 1), 3, 1, 1)
    return torch.minimum(weight, F.avg_pool2d(weight, 5, 1, 2, count_include_pad=False))


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
    return ((area - _LEAST_AREA) / (_FULL_AREA - _LEAST_AREA)).clamp(0, 1)


def find_jumps(lookup: Float[Tensor, "batch 2 grid grid"]) -> Float[Tensor, "batch 1 grid grid"]:
    """Return 1 where neighbours of a look-up look at different surfaces."""
    widest = F.max_pool2d(lookup, 3, 1, 1) + F.max_pool2d(-lookup, 3, 1, 1)
    return (widest.amax(1, keepdim=True) * (lookup.shape[-1] / 2) > _JUMP).to(lookup.dtype)


def enlarge_lookup(
    lookup: Float[Tensor, "batch 2 grid grid"], jumps: Float[Tensor, "batch 1 size size"]
) -> Float[Tensor, "batch 2 size size"]:
    """Enlarge a look-up smoothly within surfaces, and without inventing places between two of them (at jumps)."""
    size = jumps.shape[-1]
    return torch.where(jumps > 0, _nearest(lookup, size), _resized(lookup, size))


def _distance(vertices: Float[Tensor, "batch n 3"], camera: Float[Tensor, "batch 25"]) -> Float[Tensor, "batch n 1"]:
    distance: Tensor = (vertices - unpack_label(camera)[0][:, None, :3, 3]).norm(dim=-1, keepdim=True)
    return distance


def _look_up(maps: Tensor, lookup: Float[Tensor, "batch 2 h w"], mode: str = "bilinear") -> Tensor:
    places = lookup.permute(0, 2, 3, 1)
    looked_up: Tensor = F.grid_sample(maps, places, mode=mode, align_corners=False, padding_mode="border")
    return looked_up


def _nearest(maps: Tensor, size: int) -> Tensor:
    return F.interpolate(maps, (size, size), mode="nearest")


def _resized(maps: Tensor, size: int) -> Tensor:
    if maps.shape[-1] == size:
        return maps
    return F.interpolate(maps, (size, size), mode="bilinear", align_corners=False)
