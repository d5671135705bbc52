"""The surface of a generated head: density on a grid, marching cubes, and a mesh with colours and normals.

Works with every generator: a plain one decodes its planes at points, an anchored one its surface tables. Meshes are in
world space (y up, the face looks along +z), so they fit the cameras and renderings they belong to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
import trimesh
from jaxtyping import Float, Int
from skimage.measure import marching_cubes
from torch import Tensor
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.ply import export_ply

from galatea.eg3d.generator import TriPlaneGenerator
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.renderer import DENSITY_SHIFT
from galatea.eg3d.triplane import PlaneTable
from galatea.eg3d.view_planes import SurfaceTables, ViewPlanes
from galatea.errors import ConfigError, InputError
from galatea.morphable.head import vertex_normals

if TYPE_CHECKING:
    from galatea.eg3d.anchored import AnchoredGenerator

    Generator: TypeAlias = TriPlaneGenerator | AnchoredGenerator

Field: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From world points (n, 3) to density (n,), per world unit, and colour (n, 3), [0,1]."""
SURFACE_DENSITY = 10.0
"""Density at the surface (the level of EG3D's shape script): light passes a tenth of a unit with a chance of 1/e."""
ANCHORED_SURFACE_DENSITY = 40.0
"""The same for the built-in generator: at 10 a haze around skin and wisps of hair would be the surface."""
_POINTS_AT_ONCE = 1 << 16
_HALVINGS = 6
_FILE_TYPES = (".ply", ".glb")


@dataclass(frozen=True)
class Cube:
    """The part of space where a surface is looked for, in world units."""

    centre: tuple[float, float, float]
    half: float


@dataclass(frozen=True)
class Mesh:
    """A triangle mesh in world space.

    Attributes:
        vertices: world coordinates.
        faces: indices of vertices, counter-clockwise seen from outside.
        normals: unit normals of vertices, outwards.
        colours: colours of vertices, [0,1].
    """

    vertices: Float[np.ndarray, "vertices 3"]
    faces: Int[np.ndarray, "faces 3"]
    normals: Float[np.ndarray, "vertices 3"]
    colours: Float[np.ndarray, "vertices 3"]

    def save(self, path: str | Path) -> None:
        """Write a binary .ply or a .glb (glTF 2.0), by the ending of the path.

        Raises:
            ConfigError: if the path ends otherwise.
        """
        path = Path(path)
        check_file_name(path)
        path.write_bytes(self.to_bytes(path.suffix.lower().removeprefix(".")))

    def to_bytes(self, kind: str = "glb") -> bytes:
        """Return the file as bytes; `kind` is "ply" or "glb"."""
        colours = np.concatenate([self.colours, np.ones_like(self.colours[:, :1])], axis=1)
        mesh = trimesh.Trimesh(
            self.vertices,
            self.faces,
            vertex_normals=self.normals,
            vertex_colors=np.rint(colours.clip(0, 1) * 255).astype(np.uint8),
            process=False,
        )
        if kind == "ply":
            return bytes(export_ply(mesh, vertex_normal=True))
        return bytes(export_glb(mesh, include_normals=True))  # type: ignore[no-untyped-call]


def check_file_name(path: Path) -> None:
    """Refuse names of files that meshes are not written to.

    Raises:
        ConfigError: if the path does not end with .ply or .glb.
    """
    if path.suffix.lower() not in _FILE_TYPES:
        raise ConfigError(f"mesh file: expected a name that ends with {' or '.join(_FILE_TYPES)}, got {path.name!r}")


def head_mesh(
    generator: Generator,
    planes: Float[Tensor, "1 planes channels height width"],
    resolution: int = 192,
    level: float | None = None,
) -> Mesh:
    """Return the surface of one head.

    Args:
        generator: plain or anchored.
        planes: of one head, from `generator.planes`.
        resolution: grid points along an edge; the work grows with its cube.
        level: density of the surface, per world unit; higher ones lie deeper, below wisps of hair. None: the usual one
            of the kind of generator.

    Raises:
        InputError: if there are several heads, or there is no surface of this density.
    """
    if planes.shape[0] != 1:
        raise InputError(
            f"planes: expected those of one head, got a batch of {planes.shape[0]}; make one mesh at a time"
        )
    if level is None:
        level = SURFACE_DENSITY if isinstance(generator, TriPlaneGenerator) else ANCHORED_SURFACE_DENSITY
    return surface_mesh(density_field(generator, planes), cube_of(generator), resolution, level, planes.device)


def cube_of(generator: Generator) -> Cube:
    """Return the part of space that the planes of a generator cover."""
    if isinstance(generator, TriPlaneGenerator):
        return Cube((0.0, 0.0, 0.0), generator.config.rendering.box_warp / 2)
    return Cube(generator.config.box.centre, generator.config.box.half)


def density_field(generator: Generator, planes: Float[Tensor, "1 planes channels height width"]) -> Field:
    """Return density and colour of one head as a function of world points."""
    if isinstance(generator, TriPlaneGenerator):
        table, plain = PlaneTable.from_planes(planes), generator

        def decode(points: Tensor) -> tuple[Tensor, Tensor]:
            box = plain.config.rendering.box_warp
            found = plain.decoder(table.sample(points[None], plain.renderer.projection, box))
            return F.softplus(found.density[0, :, 0] - DENSITY_SHIFT), found.features[0, :, :3]

        return decode
    tables, anchored = SurfaceTables.of(ViewPlanes.unpack(planes)), generator

    def decode_anchored(points: Tensor) -> tuple[Tensor, Tensor]:
        values, density = anchored.decoder(tables, anchored.config.box.enter(points)[None])
        return density[0] / anchored.config.box.half, values[0, :, :3]

    return decode_anchored


@torch.no_grad()
def density_grid(
    field: Field, cube: Cube, resolution: int, device: torch.device | None = None
) -> Float[Tensor, "x y z"]:
    """Return the density at `resolution`^3 points, from face to face of the cube."""
    places = torch.linspace(-cube.half, cube.half, resolution, device=device)
    centre = torch.tensor(cube.centre, device=device)
    grid = torch.stack(torch.meshgrid(places, places, places, indexing="ij"), dim=-1).reshape(-1, 3) + centre
    return torch.cat([field(points)[0] for points in torch.split(grid, _POINTS_AT_ONCE)]).reshape(3 * (resolution,))


@torch.no_grad()
def surface_mesh(field: Field, cube: Cube, resolution: int, level: float, device: torch.device | None = None) -> Mesh:
    """Return the surface where the density of a field passes `level` (marching cubes, Lewiner et al. 2003).

    Vertices are moved along their grid edges to where the field itself passes the level. Interpolation alone leaves
    them up to half a cell off, in rings and steps, because density goes from nothing to saturation within a cell.
    The surface is closed: where it would leave the cube it is cut off flat. Normals are those of the triangles.

    Raises:
        ConfigError: if the grid is too small or the level not positive.
        InputError: if the density does not pass the level in the cube.
    """
    if resolution < 8 or level <= 0:
        raise ConfigError(f"mesh: expected a resolution of at least 8 and a level > 0, got {resolution} and {level}")
    grid = density_grid(field, cube, resolution, device).cpu().numpy()
    if not np.isfinite(grid).all() or not grid.min() < level < grid.max():
        raise InputError(
            f"mesh: no surface: expected densities on both sides of {level:g}, got {grid.min():.3g} to "
            f"{grid.max():.3g}; choose another level"
        )
    places, triangles, _, _ = marching_cubes(np.pad(grid, 1), level, gradient_direction="descent")  # type: ignore[no-untyped-call]
    faces = torch.from_numpy(np.ascontiguousarray(triangles[:, ::-1], np.int64))
    in_cells = torch.from_numpy(np.ascontiguousarray(places, np.float32)) - 1
    step, corner = 2 * cube.half / (resolution - 1), torch.tensor(cube.centre) - cube.half

    def at(cells: Tensor) -> tuple[Tensor, Tensor]:
        points = torch.split((cells * step + corner).to(device), _POINTS_AT_ONCE)
        found = [field(part) for part in points]
        return torch.cat([f[0] for f in found]).float().cpu(), torch.cat([f[1] for f in found]).float().cpu()

    in_cells = _settled(lambda cells: at(cells)[0], in_cells, resolution, level)
    vertices, colours = in_cells * step + corner, at(in_cells)[1].clamp(0, 1)
    normals = vertex_normals(vertices[None], faces)[0]
    return Mesh(vertices.numpy(), faces.int().numpy(), normals.numpy(), colours.numpy())


def _settled(
    density: Callable[[Tensor], Tensor], places: Float[Tensor, "n 3"], resolution: int, level: float
) -> Float[Tensor, "n 3"]:
    """Move vertices of marching cubes (in cells) along their grid edges to where the density is `level`.

    The edge is halved a few times, then its last part is interpolated. Vertices on no edge of the grid stay.
    """
    inside, outside = places.floor(), places.ceil()
    within = torch.nonzero(((inside >= 0) & (outside <= resolution - 1)).all(1) & (inside != outside).any(1))[:, 0]
    inside, outside = inside[within], outside[within]
    inner, outer = density(inside), density(outside)
    is_swapped = inner < outer
    inside, outside = (torch.where(is_swapped[:, None], b, a) for a, b in ((inside, outside), (outside, inside)))
    inner, outer = torch.maximum(inner, outer), torch.minimum(inner, outer)
    crosses = (inner > level) & (outer <= level)
    for _ in range(_HALVINGS):
        middle = (inside + outside) / 2
        found = density(middle)
        is_inside = found > level
        inside, inner = torch.where(is_inside[:, None], middle, inside), torch.where(is_inside, found, inner)
        outside, outer = torch.where(is_inside[:, None], outside, middle), torch.where(is_inside, outer, found)
    share = ((inner - level) / (inner - outer).clamp_min(1e-12)).clamp(0, 1)
    settled = places.clone()
    settled[within[crosses]] = (inside + share[:, None] * (outside - inside))[crosses]
    return settled


def depth_normals(
    depth: Float[Tensor, "batch 1 size size"], c: Float[Tensor, "batch 25"]
) -> Float[Tensor, "batch 3 size size"]:
    """Return unit normals in world space, towards the camera, of a rendered depth map (`Rendering.depth`)."""
    batch, _, size, _ = depth.shape
    rays = camera_rays(c, size)
    points = rays.origins + depth.reshape(batch, -1, 1) * rays.directions
    grid = F.pad(points.transpose(1, 2).reshape(batch, 3, size, size), (1, 1, 1, 1), mode="replicate")
    right, down = grid[:, :, 1:-1, 2:] - grid[:, :, 1:-1, :-2], grid[:, :, 2:, 1:-1] - grid[:, :, :-2, 1:-1]
    return F.normalize(torch.linalg.cross(down, right, dim=1), dim=1)
