"""Carrying the expressed head mesh onto the planes: orthographic z-buffers of a triangle mesh, batched, in plain torch.

A cast looks along one axis of the plane box and keeps, for every plane texel, the outermost triangle. Neural textures
are then sampled at the texel's UV; depth and normal become plane features, from which the decoder reads signed
distances to the mesh (Sun et al. 2023, Next3D, rasterise textures the same way; depth as a feature is ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from galatea.morphable.head import vertex_normals

_DEPTH_STEPS = 1 << 24
_TRIANGLE_BITS = 24
_BLOCK_SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
"""Triangles are tested against square blocks of texels of these sizes; the smallest that holds the triangle is used."""
_BEFORE_TEETH = 0.045
"""How far lips may stand before the teeth behind them without hiding them from light (half boxes, 8 mm on a real
head): more than their thickness, as they are pushed out when they speak."""


@dataclass(frozen=True)
class View:
    """An orthographic view of the plane box: which world axes run along columns, rows and towards the viewer."""

    name: str
    column_axis: int
    row_axis: int
    depth_axis: int
    depth_sign: int


VIEWS = (
    View("front", 0, 1, 2, 1),
    View("right", 2, 1, 0, 1),
    View("left", 2, 1, 0, -1),
    View("top", 0, 2, 1, 1),
)
"""The casts of a head. `right` is seen from +x, `left` from -x. Rows grow with the coordinate, as in EG3D's planes."""


@dataclass(frozen=True)
class MeshTopology:
    """What does not change between heads: triangles and their corners' texture coordinates.

    Attributes:
        faces: vertex indices per triangle.
        uv: texture coordinates per triangle corner, in [0, 1], v up.
    """

    faces: Int[Tensor, "faces 3"]
    uv: Float[Tensor, "faces 3 2"]


@dataclass(frozen=True)
class ViewCast:
    """One view of a batch of heads; texels without mesh have zeros.

    Attributes:
        uv: texture coordinates, in [0, 1].
        normal: unit normals in world axes.
        shade: share of the red, green and blue light around that does not get there (`mouth_shade`).
        surface: mask (1 where the view sees the mesh); coordinate of the surface towards the viewer in half boxes,
            continued two texels beyond the outline so that bilinear reads there are sound, -1 elsewhere; and how far
            the normal points to the viewer (0..1).
    """

    uv: Float[Tensor, "batch rows columns 2"]
    normal: Float[Tensor, "batch rows columns 3"]
    shade: Float[Tensor, "batch rows columns 3"]
    surface: Float[Tensor, "batch rows columns 3"]

    @property
    def mask(self) -> Float[Tensor, "batch rows columns"]:
        """1 where the view sees the mesh."""
        return self.surface[..., 0]

    @property
    def mouth(self) -> Float[Tensor, "batch rows columns"]:
        """Where the view looks into a mouth: coordinate towards the viewer of what is outermost around a texel (teeth
        as they are, lips where teeth behind them may be); -1 elsewhere.
        """
        is_inside = (self.shade > 0).any(-1)
        depth = torch.where(is_inside, self.surface[..., 1], self.surface[..., 1] - _BEFORE_TEETH)
        near, outermost = F.max_pool2d(torch.stack([is_inside.to(depth.dtype), depth], 1), 5, 1, 2).unbind(1)
        return torch.where(near > 0, outermost, torch.full_like(outermost, -1.0))


def winning_triangles(
    points: Float[Tensor, "batch vertices 2"],
    depth: Float[Tensor, "batch vertices"],
    faces: Int[Tensor, "faces 3"],
    size: tuple[int, int],
) -> Int[Tensor, "batch rows columns"]:
    """Return the outermost front-facing triangle at each texel centre, -1 where there is none.

    Depth ties are settled by the triangle's index, so the result does not depend on the order of execution.

    Args:
        points: (column, row) of every vertex in texels; the centre of the first texel is (0, 0).
        depth: coordinate towards the viewer in [-1, 1]; the largest wins.
        faces: vertex indices; triangles that turn clockwise (columns right, rows up) are back faces.
        size: rows and columns.
    """
    batch, (rows, columns) = points.shape[0], size
    x, y, z = (values[:, faces].flatten(0, 1) for values in (points[..., 0], points[..., 1], depth))
    area = (x[:, 1] - x[:, 0]) * (y[:, 2] - y[:, 0]) - (y[:, 1] - y[:, 0]) * (x[:, 2] - x[:, 0])
    left, top = x.amin(1).ceil().clamp_min(0), y.amin(1).ceil().clamp_min(0)
    width = x.amax(1).floor().clamp_max(columns - 1) - left + 1
    height = y.amax(1).floor().clamp_max(rows - 1) - top + 1
    is_candidate = (area > 1e-9) & (width > 0) & (height > 0)
    extent = torch.where(is_candidate, torch.maximum(width, height), torch.zeros_like(width))
    table = torch.stack([*x.unbind(1), *y.unbind(1), *z.unbind(1), area, left, top], dim=1)
    winners = torch.full((batch * rows * columns,), -1, dtype=torch.int64, device=points.device)
    smaller = 0
    for block in _BLOCK_SIZES + ((max(size),) if max(size) > _BLOCK_SIZES[-1] else ()):
        chosen = ((extent > smaller) & (extent <= block)).nonzero()[:, 0]
        smaller = block
        if chosen.numel():
            _splat(winners, table[chosen], chosen, (block, faces.shape[0], *size))
    return torch.where(winners < 0, -1, winners & ((1 << _TRIANGLE_BITS) - 1)).view(batch, rows, columns)


def _splat(
    winners: Int[Tensor, "texels"],
    table: Float[Tensor, "n 12"],
    chosen: Int[Tensor, "n"],
    layout: tuple[int, int, int, int],
) -> None:
    """Offer each triangle to the texels of its block; `winners` keeps the largest (depth, triangle) key.

    Args:
        winners: key per texel of all images.
        table: x, y and depth of the three corners, twice the area, left and top of the block.
        chosen: index of every triangle among those of all images.
        layout: size of a block, triangles per image, rows, columns.
    """
    block, num_faces, rows, columns = layout
    x0, x1, x2, y0, y1, y2, z0, z1, z2, area, left, top = (value[:, None, None] for value in table.unbind(1))
    step = torch.arange(block, device=table.device, dtype=table.dtype)
    # Barycentric weights are linear: one value and two slopes a triangle, in units of its area.
    x, y = left + step, top + step[:, None]
    second = (x - x0) * (y2 - y0) - (y - y0) * (x2 - x0)
    third = (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0)
    least = torch.minimum(torch.minimum(second, third), area - second - third)
    inside = (least >= -1e-6 * area) & (x < columns) & (y < rows)
    offered = inside.flatten().nonzero()[:, 0]
    owner = offered // (block * block)
    depth = z0 + (second * (z1 - z0) + third * (z2 - z0)) / area
    quantised = ((depth.flatten()[offered] + 1.5) * (_DEPTH_STEPS / 3)).long().clamp(0, _DEPTH_STEPS - 1)
    triangle = chosen[owner]
    column = left.flatten()[owner].long() + offered % block
    row = top.flatten()[owner].long() + offered // block % block
    texel = (triangle // num_faces * rows + row) * columns + column
    winners.scatter_reduce_(0, texel, (quantised << _TRIANGLE_BITS) | (triangle % num_faces), "amax")


def barycentric(
    corners: Float[Tensor, "*batch 3 2"], column: Float[Tensor, "*batch"], row: Float[Tensor, "*batch"]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the barycentric weights of (column, row) in triangles; they sum to one and are negative outside."""
    a, b, c = corners[..., 0, :], corners[..., 1, :], corners[..., 2, :]
    ab, ac = b - a, c - a
    area = ab[..., 0] * ac[..., 1] - ab[..., 1] * ac[..., 0]
    area = torch.where(area.abs() < 1e-12, torch.ones_like(area), area)
    x, y = column - a[..., 0], row - a[..., 1]
    second = (x * ac[..., 1] - y * ac[..., 0]) / area
    third = (ab[..., 0] * y - ab[..., 1] * x) / area
    return 1 - second - third, second, third


def cast_triangles(
    vertices: Float[Tensor, "batch vertices 3"], faces: Int[Tensor, "faces 3"], view: View, size: int
) -> Int[Tensor, "batch size size"]:
    """Return the triangle that a view sees at each texel of a plane of `size`; vertices in half boxes ([-1, 1])."""
    points, depth = _in_view(vertices, view, size)
    # A view whose axes form a left-handed triple shows counter-clockwise triangles clockwise.
    handed = _handedness(view)
    ordered = faces if handed > 0 else faces[:, [0, 2, 1]]
    return winning_triangles(points, depth, ordered, (size, size))


def _handedness(view: View) -> int:
    cyclic = (view.column_axis + 1) % 3 == view.row_axis
    return view.depth_sign if cyclic else -view.depth_sign


def _in_view(vertices: Tensor, view: View, size: int) -> tuple[Tensor, Tensor]:
    plane = torch.stack([vertices[..., view.column_axis], vertices[..., view.row_axis]], -1)
    return (plane * 0.5 + 0.5) * size - 0.5, vertices[..., view.depth_axis] * view.depth_sign


def resolve_cast(
    triangles: Int[Tensor, "batch rows columns"],
    vertices: Float[Tensor, "batch vertices 3"],
    attributes: Float[Tensor, "batch vertices 6"],
    topology: MeshTopology,
    view: View,
) -> ViewCast:
    """Interpolate what is known of vertices at the texels of a cast; differentiable in it.

    Args:
        triangles: seen at each texel, -1 for none.
        vertices: in half boxes.
        attributes: of each vertex: unit normal, and share of the light that does not get there.
        topology: of the mesh.
        view: the cast's.
    """
    batch, rows, columns = triangles.shape
    mask: Bool[Tensor, "batch rows columns"] = triangles >= 0
    where = mask.flatten().nonzero()[:, 0]
    triangle = triangles.flatten()[where].long()
    person = where // (rows * columns)
    corner_index = topology.faces[triangle] + (person * vertices.shape[1])[:, None]
    corners = vertices.flatten(0, 1)[corner_index]
    points, depth = _in_view(corners, view, columns)
    column, row = (where % columns).to(points.dtype), (where // columns % rows).to(points.dtype)
    weights = torch.stack(barycentric(points, column, row), -1)
    uv = (weights[..., None] * topology.uv[triangle]).sum(1)
    found = (weights[..., None] * attributes.flatten(0, 1)[corner_index]).sum(1)
    facing = (found[:, view.depth_axis, None] * view.depth_sign).clamp_min(0)
    values = torch.cat([uv, found, (weights * depth).sum(1, keepdim=True), facing], 1)
    maps = values.new_zeros(batch * rows * columns, 10).index_copy(0, where, values)
    maps = maps.view(batch, rows, columns, 10)
    depth = spread_depth(maps[..., 8], mask)
    surface = torch.stack([mask.to(depth.dtype), depth, maps[..., 9]], dim=-1)
    return ViewCast(maps[..., :2], maps[..., 2:5], maps[..., 5:8], surface)


def spread_depth(
    depth: Float[Tensor, "batch rows columns"], mask: Bool[Tensor, "batch rows columns"]
) -> Float[Tensor, "batch rows columns"]:
    """Continue a surface two texels beyond its outline with its outermost neighbour; -1 farther out."""
    filled = torch.where(mask, depth, torch.full_like(depth, -1.0))
    wide = filled
    for axis in (1, 2):
        padded = F.pad(wide, (2, 2, 0, 0) if axis == 2 else (0, 0, 2, 2), value=-1.0)
        size = wide.shape[axis]
        shifted = [padded.narrow(axis, start, size) for start in range(5)]
        wide = torch.maximum(torch.maximum(shifted[0], shifted[1]), torch.maximum(shifted[3], shifted[4]))
        wide = torch.maximum(wide, shifted[2])
    return torch.where(mask, depth, wide)


def cast_views(
    vertices: Float[Tensor, "batch vertices 3"],
    shade: Float[Tensor, "batch vertices 3"],
    topology: MeshTopology,
    sizes: Sequence[int],
) -> tuple[ViewCast, ...]:
    """Cast heads onto all `VIEWS`; `vertices` in half boxes, `shade` of each as `ViewCast`'s, one size a view."""
    attributes = torch.cat([vertex_normals(vertices, topology.faces), shade], -1)
    with torch.no_grad():
        triangles = [
            cast_triangles(vertices, topology.faces, view, size) for view, size in zip(VIEWS, sizes, strict=True)
        ]
    return tuple(
        resolve_cast(seen, vertices, attributes, topology, view) for seen, view in zip(triangles, VIEWS, strict=True)
    )
