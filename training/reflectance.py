"""Starting point of the neural texture: the reflectance of synthetic heads, laid out in the head's atlas.

MakeHuman's CC0 skins, the eyes and the clothes are brought into the atlas as the renderer of the training pictures
paints them. Training could find all this from pictures alone; starting from it spends the compute on hair and lids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.carry import barycentric, winning_triangles
from galatea.morphable.head import HeadModel
from training.heads.assets import MEAN_PATCH
from training.heads.eye_map import eye_uv

_BLEED_STEPS = 6
CLOTH_BELOW = -0.25
"""Height (world units) under which skin and clothes are bare of hair and brows."""
SURROUNDING_LIGHT = 0.8
"""Share of sky and ground that reaches an average place of a head."""
NUM_SPARE_MAPS = 4
"""Basis maps that start from noise: for brows, lashes and whatever else the pictures show."""
FLAT_COLOURS = {"teeth": (0.7, 0.66, 0.58), "tongue": (0.4, 0.14, 0.12), "mouth": (0.2, 0.05, 0.045)}
"""Linear colours to start parts from that the skins do not paint."""


@dataclass(frozen=True)
class AtlasTexels:
    """The texels of the atlas that lie on the head: where they are and what they show.

    Attributes:
        rows, columns: texel indices.
        triangle: triangle of the head model at each.
        weights: barycentric weights of its corners.
    """

    rows: Int[Tensor, "n"]
    columns: Int[Tensor, "n"]
    triangle: Int[Tensor, "n"]
    weights: Float[Tensor, "n 3"]

    @classmethod
    def of(cls, model: HeadModel, size: int) -> AtlasTexels:
        """Find the triangle at every texel centre of an atlas of `size`."""
        uv = model.uv
        points = torch.stack([uv[..., 0] * size - 0.5, (1 - uv[..., 1]) * size - 0.5], -1).view(1, -1, 2)
        corners = torch.arange(points.shape[1]).view(-1, 3)
        # The atlas may hold mirrored islands: offer every triangle in both turns.
        both = torch.cat([corners, corners[:, [0, 2, 1]]])
        found = winning_triangles(points, torch.zeros_like(points[..., 0]), both, (size, size))[0]
        rows, columns = (found >= 0).nonzero(as_tuple=True)
        triangle = found[rows, columns] % corners.shape[0]
        weights = barycentric(points[0].view(-1, 3, 2)[triangle], columns.float(), rows.float())
        return cls(rows, columns, triangle, torch.stack(weights, -1))

    def interpolate(self, corner_values: Float[Tensor, "faces 3 k"]) -> Float[Tensor, "n k"]:
        """Interpolate values given at triangle corners."""
        return (self.weights[..., None] * corner_values[self.triangle]).sum(1)


def bleed(atlas: Float[Tensor, "3 size size"], painted: Tensor) -> Float[Tensor, "3 size size"]:
    """Continue painted texels outwards, so that reads at island borders are sound; the mean colour farther out."""
    mean = atlas[:, painted].mean(1)
    for _ in range(_BLEED_STEPS):
        count = F.avg_pool2d(painted[None, None].float(), 3, 1, 1)[0, 0]
        total = F.avg_pool2d((atlas * painted)[None], 3, 1, 1)[0]
        grown = count > 0
        atlas = torch.where(painted, atlas, total / count.clamp_min(1e-6))
        painted = painted | grown
    return torch.where(painted, atlas, mean[:, None, None])


def read_picture(path: Path) -> Float[Tensor, "3 height width"]:
    """Read a picture as sRGB in [0,1]."""
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1) / 255.0


def sample_picture(
    picture: Float[Tensor, "channels height width"], uv: Float[Tensor, "n 2"]
) -> Float[Tensor, "n channels"]:
    """Read a picture at texture coordinates, v upwards."""
    grid = torch.stack([uv[:, 0] * 2 - 1, 1 - uv[:, 1] * 2], -1)[None, None]
    return F.grid_sample(picture[None], grid, padding_mode="border", align_corners=False)[0, :, 0].T


class HeadReflectance:
    """Reflectance of heads in the atlas, from their semantic codes.

    Args:
        model: head model.
        assets: folder of MakeHuman's system assets.
        size: texels per side of the atlas.
        fields: fields of the code: name -> (start, stop).
    """

    def __init__(self, model: HeadModel, assets: Path, size: int, fields: Mapping[str, tuple[int, int]]) -> None:
        self.size, self.fields = size, fields
        self.texels = AtlasTexels.of(model, size)
        names = [model.part_names[part] for part in model.part[self.texels.triangle].tolist()]
        self.is_part = {name: torch.tensor([found == name for found in names]) for name in model.part_names}
        source = self.texels.interpolate(model.source_uv)
        self.rest = self.texels.interpolate(model.mean[model.faces])
        self.skins = []
        for path in sorted((assets / "skins" / "textures").glob("*.png")):
            skin = _linear(read_picture(path))
            rows, columns = (slice(*(edge * skin.shape[-1] // 512 for edge in (s.start, s.stop))) for s in MEAN_PATCH)
            self.skins.append(sample_picture(skin, source) / skin[:, rows, columns].mean((1, 2)))
        self.eye, self.iris = self._eye(model, assets)

    @property
    def is_certain(self) -> Float[Tensor, "size size"]:
        """1 at texels of eyes and clothes, whose look follows from the code alone (brows cover the skin)."""
        is_low = self.rest[:, 1] < CLOTH_BELOW
        mask = torch.zeros(self.size, self.size)
        mask[self.texels.rows, self.texels.columns] = (is_low | self.is_part["eye"]).float()
        return mask

    def _eye(self, model: HeadModel, assets: Path) -> tuple[Tensor, Tensor]:
        """Return the eye's own colour, and the brightness of its iris (0 outside)."""
        picture = _linear(read_picture(assets / "eyes" / "materials" / "grey_eye.png"))
        uv = self.texels.interpolate(torch.from_numpy(eye_uv(model)).float())
        offset = (uv - 0.5) * (364 / 512)
        radius = offset.norm(dim=-1, keepdim=True)
        place = torch.tensor([361 / 512, 1 - 151 / 512]) + offset * (
            radius.clamp_max(138 / 512) / radius.clamp_min(1e-6)
        )
        colour = sample_picture(picture, place)
        iris = ((60.5 / 512 - radius) * 120).clamp(0, 1)
        bright = ((colour @ torch.tensor([0.2126, 0.7152, 0.0722]))[:, None] / 0.15).clamp(0, 2.2)
        return colour * 0.9 * (1 - iris), bright * iris

    def _field(self, code: Float[Tensor, "z"], name: str) -> Float[Tensor, "width"]:
        return code[slice(*self.fields[name])]

    def atlas(self, code: Float[Tensor, "z"]) -> Float[Tensor, "3 size size"]:
        """Return the reflectance of one head, sRGB in [0,1]."""
        skin_colour = _linear(self._field(code, "skin_color"))
        colour = self.skins[int(self._field(code, "skin_texture").argmax())] * skin_colour
        height = self._field(code, "cloth_height") / 10 - 0.38
        edge = height - self._field(code, "cloth_tilt") * self.rest[:, 2] + 0.004 * torch.sin(self.rest[:, 0] * 23)
        cover = ((edge - self.rest[:, 1]) * 260 + 0.5).clamp(0, 1)[:, None]
        colour = colour * (1 - cover) + _linear(self._field(code, "cloth_color")) * cover
        eye = self.eye + self.iris * _linear(self._field(code, "eye_color"))
        socket = 0.6 * skin_colour * torch.tensor([1.0, 0.62, 0.58]) + torch.tensor([0.06, 0.01, 0.01])
        painted = {"eye": eye, "socket": socket, **{name: torch.tensor(value) for name, value in FLAT_COLOURS.items()}}
        for name, value in painted.items():
            colour = torch.where(self.is_part[name][:, None], value, colour)
        atlas, is_painted = torch.zeros(3, self.size, self.size), torch.zeros(self.size, self.size, dtype=torch.bool)
        atlas[:, self.texels.rows, self.texels.columns] = _display(colour).T
        is_painted[self.texels.rows, self.texels.columns] = True
        return bleed(atlas, is_painted)


def _linear(colour: Tensor) -> Tensor:
    return torch.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)


def _display(colour: Tensor) -> Tensor:
    colour = colour.clamp(1e-5, 1)
    return torch.where(colour <= 0.0031308, colour * 12.92, 1.055 * colour ** (1 / 2.4) - 0.055)


def falling_light(
    codes: Float[Tensor, "n z"], fields: Mapping[str, tuple[int, int]], normals: Float[Tensor, "m 3"]
) -> Float[Tensor, "n m 3"]:
    """Return how much brighter (in displayed colours) surfaces of these normals are than their reflectance.

    The renderer's light without shadows: a wrapped key light, and sky and ground dimmed by the surroundings.
    """
    direction, key, sky, ground = (
        codes[:, slice(*fields[name])] for name in ("light_direction", "light_color", "sky_color", "ground_color")
    )
    cosine = (direction @ normals.T)[..., None]
    lit = ((cosine + 0.15) / 1.15).clamp_min(0) * key[:, None]
    above = 0.5 + normals[:, 1, None] / 3
    around = SURROUNDING_LIGHT * (sky[:, None] * above + ground[:, None] * (1 - above))
    return (lit + around).clamp_min(1e-4) ** (1 / 2.2)


def start_appearance(
    generator: AnchoredGenerator, reflectance: HeadReflectance, codes: Float[Tensor, "n z"], num_steps: int
) -> list[float]:
    """Start texture and light from what is known without pictures.

    The texture's mean and basis become the principal maps of these heads' reflectance; their mix and the light are
    fitted to the codes.

    Returns:
        The loss of every step.
    """
    atlases = torch.stack([reflectance.atlas(code) for code in codes])
    mean = atlases.mean(0)
    centred = (atlases - mean).flatten(1)
    values, vectors = torch.linalg.eigh(centred @ centred.T / len(codes))
    count = generator.config.num_texture_maps - NUM_SPARE_MAPS
    order = values.argsort(descending=True)[:count]
    maps = (vectors[:, order].T @ centred) / len(codes) ** 0.5
    with torch.no_grad():
        generator.texture.mean.copy_(mean)
        generator.texture.basis[:count] = maps.view(count, *mean.shape)
    scale = values[order].clamp_min(1e-9).sqrt() / atlases[0].numel() ** 0.5
    return _fit_mapping(generator, codes, (vectors[:, order] * len(codes) ** 0.5, scale), reflectance.fields, num_steps)


def _fit_mapping(
    generator: AnchoredGenerator,
    codes: Tensor,
    wanted: tuple[Float[Tensor, "n maps"], Float[Tensor, "maps"]],
    fields: Mapping[str, tuple[int, int]],
    num_steps: int,
) -> list[float]:
    """Fit mapping network, coefficients of the texture maps (`wanted`, with their importance) and light to codes."""
    read = generator.texture.coefficients
    modules = (generator.mapping_network, read, generator.light)
    optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()], 4e-3)
    light = slice(fields["light_direction"][0], fields["ground_color"][1])
    losses = []
    for step in range(num_steps):
        shuffled = codes.clone()
        shuffled[:, light] = codes[torch.randperm(len(codes)), light]
        ws = generator.mapping(shuffled)
        mix = read(ws[:, generator.texture.num_ws - 1])
        target, scale = wanted
        texture = ((mix[:, : len(scale)] - target) * scale).square().sum(1).mean()
        normals = F.normalize(torch.randn(48, 3) + torch.tensor([0.0, 0.0, 0.7]), dim=-1)
        found = generator.light(ws[:, -1], normals.expand(len(codes), 1, 48, 3))[:, 0]
        loss = texture + 0.3 * (found - falling_light(shuffled, fields, normals)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - step / num_steps)
        losses.append(float(loss.detach()))
    return losses
