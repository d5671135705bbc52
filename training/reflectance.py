"""Starting point of the neural texture: the reflectance of synthetic heads, laid out in the head's atlas.

MakeHuman's CC0 skins, the eyes and the clothes are brought into the atlas as the renderer of the training pictures
paints them. Training could find all this from pictures alone; starting from it spends the compute on hair and lids.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from galatea.eg3d.atlas import AtlasTexels
from galatea.eg3d.clothes import neckline_cover
from galatea.morphable.head import HeadModel
from training.heads.assets import MEAN_PATCH
from training.heads.eye_map import eye_uv

_BLEED_STEPS = 6
CLOTH_BELOW = -0.2
"""Height (world units) under which skin and clothes are bare of hair and brows."""
_EDGE_SHARPNESS = 260.0
"""Cover that clothes of the training pictures gain a world unit below their edge."""
FLAT_COLOURS = {"teeth": (0.7, 0.66, 0.58), "tongue": (0.27, 0.085, 0.08), "mouth": (0.02, 0.004, 0.004)}
"""Linear colours of parts that the skins do not paint: what pictures show of tongues and walls, over the light that
comes in between the lips."""


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

    @property
    def regions(self) -> dict[str, Bool[Tensor, "size size"]]:
        """Texels of eyes, of what is bare or clothed (neck and shoulders), and of the rest, by name."""
        eye, low = self.is_part["eye"], self.rest[:, 1] < CLOTH_BELOW
        masks = {}
        for name, chosen in (("eyes", eye), ("low", low & ~eye), ("skin", ~low & ~eye)):
            masks[name] = torch.zeros(self.size, self.size, dtype=torch.bool)
            masks[name][self.texels.rows, self.texels.columns] = chosen
        return masks

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
        bright = ((colour @ torch.tensor([0.2126, 0.7152, 0.0722]))[:, None] / 0.2).clamp(0, 1.6)
        return colour * 0.9 * (1 - iris), bright * iris

    def _field(self, code: Float[Tensor, "z"], name: str) -> Float[Tensor, "width"]:
        return code[slice(*self.fields[name])]

    def atlas(self, code: Float[Tensor, "z"], *, is_clothed: bool = True) -> Float[Tensor, "3 size size"]:
        """Return the reflectance of one head, sRGB in [0,1]."""
        skin_colour = _linear(self._field(code, "skin_color"))
        colour = self.skins[int(self._field(code, "skin_texture").argmax())] * skin_colour
        if is_clothed:
            height, tilt = self._field(code, "cloth_height"), self._field(code, "cloth_tilt")
            cover = neckline_cover(self.rest, height, tilt, _EDGE_SHARPNESS)[:, None]
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


def lamps(codes: Float[Tensor, "n z"], fields: Mapping[str, tuple[int, int]]) -> Float[Tensor, "n 12"]:
    """Return the lamps of heads, as `galatea.eg3d.lighting` takes them."""
    names = ("light_direction", "light_color", "sky_color", "ground_color")
    return torch.cat([codes[:, slice(*fields[name])] for name in names], 1)


def clothes(codes: Float[Tensor, "n z"], fields: Mapping[str, tuple[int, int]]) -> Float[Tensor, "n 5"]:
    """Return colour, height and tilt of the clothes of heads, as `galatea.eg3d.clothes` reads them."""
    return torch.cat([codes[:, slice(*fields[name])] for name in ("cloth_color", "cloth_height", "cloth_tilt")], 1)
