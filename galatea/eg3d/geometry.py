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

if TYPE_CHECKING:
    from galatea.eg3d.anchored import AnchoredGenerator

    Generator: TypeAlias = TriPlaneGenerator | AnchoredGenerator

Field: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From world points (n, 3) to density (n,), per world unit, and colour (n, 3), [0,1]."""
SURFACE_DENSITY = 10.0
"""Density at the surface (the level of EG3D's shape script): light passes a tenth of a unit with a chance of 1/e."""
_POINTS_AT_ONCE = 1 << 16
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
        if path.suffix.lower() not in _FILE_TYPES:
            raise ConfigError(
                f"mesh file: expected a name that ends with {' or '.join(_FILE_TYPES)}, got {path.name!r}"
            )
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


def head_mesh(
    generator: Generator,
    planes: Float[Tensor, "1 planes channels height width"],
    resolution: int = 192,
    level: float = SURFACE_DENSITY,
) -> Mesh:
    """Return the surface of one head.

    Args:
        generator: plain or anchored.
        planes: of one head, from `generator.planes`.
        resolution: grid points along an edge; the work grows with its cube.
        level: density of the surface, per world unit; higher ones lie deeper, below wisps of hair.

    Raises:
        InputError: if there are several heads, or there is no surface of this density.
    """
    if planes.shape[0] != 1:
        raise InputError(
            f"planes: expected those of one head, got a batch of {planes.shape[0]}; make one mesh at a time"
        )
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

    It is closed: where it would leave the cube it is cut off flat. Normals point down the gradient of the density.

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
    step = 2 * cube.half / (resolution - 1)
    vertices, faces, normals, _ = marching_cubes(np.pad(grid, 1), level, gradient_direction="descent")  # type: ignore[no-untyped-call]
    vertices = ((vertices - 1) * step - cube.half + np.array(cube.centre)).astype(np.float32)
    points = torch.from_numpy(vertices).to(device)
    colours = torch.cat([field(part)[1] for part in torch.split(points, _POINTS_AT_ONCE)]).clamp(0, 1)
    return Mesh(vertices, np.ascontiguousarray(faces[:, ::-1], np.int32), normals, colours.float().cpu().numpy())


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
