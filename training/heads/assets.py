"""MakeHuman's CC0 assets: skins, hair, brows, lashes, eyes, teeth, tongue; and how a proxy is fitted to a head.

The folder is that of MakeHuman's system assets: `skins/`, `hair/NAME/NAME.mhclo` and so on. Textures of any size are
brought to one side length, kept as 8-bit RGBA in one pool that the ray caster indexes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8
from PIL import Image

from galatea.errors import ConfigError
from training.heads.shading import TEXTURE_SIDE

MEAN_PATCH = (slice(230, 297), slice(400, 461))
"""Rows and columns of a 512 px skin texture that hold cheeks, nose and forehead."""


@dataclass(frozen=True)
class Proxy:
    """A mesh that follows the base mesh: each vertex is a weighted sum of three vertices plus a scaled offset."""

    name: str
    refs: Int[np.ndarray, "n 3"]
    weights: Float[np.ndarray, "n 3"]
    offsets: Float[np.ndarray, "n 3"]
    scale_refs: Int[np.ndarray, "3 2"]
    scale_lengths: Float[np.ndarray, "3"]
    triangles: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "f 3 2"]

    def fit(self, vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "n 3"]:
        """Return the proxy's vertices for a head whose base mesh vertices are given (any unit)."""
        span = vertices[self.scale_refs[:, 0], range(3)] - vertices[self.scale_refs[:, 1], range(3)]
        scale = np.abs(span) / self.scale_lengths
        placed = (vertices[self.refs] * self.weights[..., None]).sum(1) + self.offsets * scale
        return np.asarray(placed, dtype=np.float32)


@dataclass
class Assets:
    """Every asset that the renderer draws from; `texels` is the texture pool, names index it through `texture`."""

    skins: list[str]
    hairs: dict[str, Proxy]
    brows: dict[str, Proxy]
    lashes: dict[str, Proxy]
    teeth: Proxy
    tongue: Proxy
    texture: dict[str, int]
    texels: UInt8[np.ndarray, "t h w 4"]
    mean_color: dict[str, Float[np.ndarray, "3"]] = field(default_factory=dict)


def to_linear(color: np.ndarray) -> np.ndarray:
    """Turn sRGB values in [0, 1] into linear light."""
    return np.asarray(np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4))


def load_assets(folder: Path, base_index: Int[np.ndarray, "v"]) -> Assets:
    """Load the assets folder for a head whose vertices have these base mesh indices.

    Raises:
        ConfigError: if the folder does not hold MakeHuman's system assets.
    """
    if not (folder / "skins" / "textures").is_dir():
        raise ConfigError(f"assets: {folder} has no skins/textures; expected MakeHuman's system assets folder")
    place = np.full(19158, -1)
    place[base_index] = np.arange(len(base_index))
    pool = _TexturePool()
    skins = sorted(path.stem for path in (folder / "skins" / "textures").glob("*.png"))
    for name in skins:
        pool.add(name, folder / "skins" / "textures" / f"{name}.png")
    groups: dict[str, dict[str, Proxy]] = {}
    for kind in ("hair", "eyebrows", "eyelashes"):
        groups[kind] = {}
        for path in sorted((folder / kind).glob("*/*.mhclo")):
            groups[kind][path.stem] = read_proxy(path, place)
            pool.add(path.stem, next(iter(sorted(path.parent.glob("*.png")))))
    pool.add("eye", folder / "eyes" / "materials" / "grey_eye.png")
    pool.add("teeth", folder / "teeth" / "materials" / "teeth.png")
    pool.add("tongue", folder / "tongue" / "tongue01" / "tongue01_diffuse.png")
    return Assets(
        skins=skins,
        hairs=groups["hair"],
        brows=groups["eyebrows"],
        lashes=groups["eyelashes"],
        teeth=read_proxy(folder / "teeth" / "teeth_base" / "teeth_base.mhclo", place),
        tongue=read_proxy(folder / "tongue" / "tongue01" / "tongue01.mhclo", place),
        texture=pool.index,
        texels=np.stack(pool.images),
        mean_color={name: _mean_color(pool.images[row], name in skins) for name, row in pool.index.items()},
    )


class _TexturePool:
    """Collects textures of one size under names."""

    def __init__(self) -> None:
        self.index: dict[str, int] = {}
        self.images: list[UInt8[np.ndarray, "h w 4"]] = []

    def add(self, name: str, path: Path) -> None:
        with Image.open(path) as image:
            square = image.convert("RGBA").resize((TEXTURE_SIDE, TEXTURE_SIDE), Image.Resampling.LANCZOS)
        self.index[name] = len(self.images)
        self.images.append(_bleed(np.array(square)))


def _bleed(image: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 4"]:
    """Give fully transparent texels the mean colour, so that interpolation at card edges shows no fringe."""
    hidden = image[..., 3] == 0
    if hidden.any() and not hidden.all():
        image[hidden, :3] = image[~hidden, :3].mean(0).astype(np.uint8)
    return image


def _mean_color(image: UInt8[np.ndarray, "h w 4"], is_skin: bool) -> Float[np.ndarray, "3"]:
    """Return the mean linear colour: of the face for skins, of what is opaque otherwise."""
    patch = image[MEAN_PATCH] if is_skin else image
    linear, weight = to_linear(patch[..., :3] / 255.0), patch[..., 3:] / 255.0
    return np.asarray((linear * weight).sum((0, 1)) / max(weight.sum(), 1e-6))


def read_proxy(path: Path, place: Int[np.ndarray, "b"]) -> Proxy:
    """Read a `.mhclo` file and its `.obj`; `place` maps base mesh indices to the head's vertices (-1: not there).

    Raises:
        ConfigError: if the proxy hangs on vertices that the head does not have.
    """
    rows: list[list[float]] = []
    scale_refs, scale_lengths = np.zeros((3, 2), dtype=np.int64), np.ones(3)
    is_vertex_list, obj = False, path.with_suffix(".obj")
    for line in path.read_text().splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] in ("x_scale", "y_scale", "z_scale"):
            axis = "xyz".index(words[0][0])
            scale_refs[axis], scale_lengths[axis] = (int(words[1]), int(words[2])), float(words[3])
        elif words[0] == "obj_file":
            obj = path.parent / words[1]
        elif words[0] == "verts":
            is_vertex_list = True
        elif is_vertex_list and len(words) == 9:
            rows.append([float(word) for word in words])
        elif is_vertex_list and len(words) == 1 and words[0].isdigit():
            rows.append([float(words[0])] * 3 + [1.0, 0, 0, 0, 0, 0])
        elif words[0] in ("delete_verts", "weights"):
            is_vertex_list = False
    table = np.array(rows)
    refs, scales = place[table[:, :3].astype(np.int64)], place[scale_refs]
    if min(refs.min(), scales.min()) < 0:
        raise ConfigError(f"assets: {path} hangs on vertices outside the head")
    triangles, uv = _read_obj(obj)
    return Proxy(path.stem, refs, table[:, 3:6], table[:, 6:9], scales, scale_lengths, triangles, uv)


def _read_obj(path: Path) -> tuple[Int[np.ndarray, "f 3"], Float[np.ndarray, "f 3 2"]]:
    """Read the triangles (quads are split) and their texture coordinates."""
    uv: list[tuple[float, float]] = []
    corners: list[list[tuple[int, int]]] = []
    for line in path.read_text().splitlines():
        words = line.split()
        if words and words[0] == "vt":
            uv.append((float(words[1]), float(words[2])))
        elif words and words[0] == "f":
            polygon = [(int(word.split("/")[0]) - 1, int(word.split("/")[1]) - 1) for word in words[1:]]
            corners += [[polygon[0], polygon[i], polygon[i + 1]] for i in range(1, len(polygon) - 1)]
    table = np.array(corners)
    return table[..., 0], np.array(uv, dtype=np.float32)[table[..., 1]]
