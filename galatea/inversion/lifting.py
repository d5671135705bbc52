"""Lifting the photo into the texture: what tuning left over, carried from the pixels to the texels that they show.

Tuning compares small images, because every step renders and differentiates all of them; so its texture is coarse. The
rest needs no gradients: a texel's reflectance is wrong by about the error of the pixel that shows it, over the light
that falls there. Corrected a few times (Landweber's iteration, with a look-up in place of the projection's transpose),
the rendering has the photo's own detail, on the surface, and it turns with the head. Pixels of hair correct the hair's
colour, which is a map seen from the front, in the same way; and teeth, which have other places on the mesh than in the
photo, take on the photo's mean colour.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from galatea.cameras import project, unpack_label
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.atlas import AtlasTexels
from galatea.eg3d.carry import ViewCast
from galatea.eg3d.lighting import harmonic_shading
from galatea.eg3d.posing import Pose
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.seen_surface import SeenSurface, see_surface
from galatea.eg3d.view_planes import Box
from galatea.errors import ConfigError
from galatea.inversion.binding import cast_once, full_maps
from galatea.inversion.hidden_texture import texture_visibility
from galatea.inversion.objective import layer_of, shown
from galatea.inversion.open_maps import open_texture
from galatea.inversion.target import InversionTarget
from galatea.morphable.head import HeadCoefficients, vertex_normals
from galatea.morphable.mouth_light import inside_vertices, mouth_shade

_LEAST_LIGHT = 0.3
"""Light (1 is full white) that a texel is taken to have at least: errors in deep shadow say little of reflectance."""
_LARGEST_STEP = 0.3
"""Largest correction of a reflectance."""
_IN_FRONT = 0.02
"""World units by which the rendered surface may lie before a texel; more, and hair hides it."""
_BEHIND = 0.04
"""Half boxes (7 mm on a real head) behind the skin, as seen from the front, at which something is hidden by it."""
_SPARSE_HAIR = 0.3
"""Pixels of hair that are added to those of a texel: fewer tell little."""
_LEAST_TEETH = 12
"""Texels of teeth that have to be seen, at least, for the photo to tell their colour."""
_RIM = 3
"""Pixels that the inside of a mouth is widened to: its errors are not the lips'."""


@dataclass(frozen=True)
class LiftingConfig:
    """How the photo is lifted into the texture.

    Attributes:
        num_steps: corrections; 0 leaves the texture as it was tuned.
        size: texels per side of the texture that the photo is lifted into, at most the generator's.
    """

    num_steps: int = 5
    size: int = 192

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        for name, low in (("num_steps", 0), ("size", 4)):
            if getattr(self, name) < low:
                raise ConfigError(f"lifting.{name}: expected at least {low}, got {getattr(self, name)}")


@dataclass(frozen=True)
class _Texels:
    """Texels of the atlas, n of them, as photos see them.

    Attributes:
        places: in the photos, for `grid_sample`.
        distance: from the camera.
        light: that gets there.
        is_tooth: 1 on teeth.
        rows, columns: in the atlas.
    """

    places: Float[Tensor, "batch n 2"]
    distance: Float[Tensor, "batch n"]
    light: Float[Tensor, "batch n 3"]
    is_tooth: Float[Tensor, "n"]
    rows: Int[Tensor, "n"]
    columns: Int[Tensor, "n"]

    def atlas(self, values: Float[Tensor, "batch n channels"], size: int) -> Float[Tensor, "batch channels size size"]:
        """Return values of texels in their places, zeros elsewhere."""
        maps = values.new_zeros(len(values), values.shape[2], size, size)
        maps[:, :, self.rows, self.columns] = values.transpose(1, 2)
        return maps


@torch.no_grad()
def lift_texture(
    generator: AnchoredGenerator,
    target: InversionTarget,
    w_plus: Float[Tensor, "batch num_ws w_dim"],
    residuals: Mapping[str, Tensor],
    config: LiftingConfig,
) -> dict[str, Tensor]:
    """Return residual maps whose fine texture and hair have the photo's detail.

    Args:
        generator: whose texture it is.
        target: photos.
        w_plus: their latents.
        residuals: as tuned; they may lack the texture.
        config: how.
    """
    maps, head = dict(residuals), target.head
    if head is None or not config.num_steps:
        return maps
    size = min(config.size, generator.config.texture_size)
    visibility = texture_visibility(generator.mesh, head, target.camera, size)
    is_open = open_texture(generator.mesh, size).to(target.image)
    light = generator.light(w_plus[:, -1])
    light = light + maps.get("light", torch.zeros_like(light))
    texels, cast = _see_texels(generator, head, target.camera, light, size), cast_once(generator, head)
    small = target.at(min(size, generator.neural_rendering_resolution))
    seen = _see_mesh(generator, head, target.camera, small.image.shape[-1])
    inside = (seen.values[:, 1:] > 0.5).to(small.image.dtype)
    # Neither the inside of mouths nor what is behind the person is to be painted onto the skin beside it.
    person = -F.max_pool2d(-small.matte, 2 * _RIM - 1, 1, _RIM - 1)
    outside = (1 - F.max_pool2d(inside, _RIM, 1, _RIM // 2)) * person
    texture = _at_size(maps.get("texture"), small.image.new_zeros(len(small.image), 3, size, size))
    tint = _at_size(maps.get("tint"), small.image.new_zeros(len(small.image), *generator.residual_shapes["tint"]))
    island = F.max_pool2d(texels.atlas(texels.is_tooth[None, :, None], size), 3, 1, 1)
    teeth = texture.new_zeros(len(texture), 3, 1, 1)
    for _ in range(config.num_steps):
        lifted = full_maps(generator, maps | {"texture": texture + teeth * island, "tint": tint})
        rendering = generator.render(generator.planes(w_plus, cast, lifted), target.camera, w_plus)
        error = (small.image - shown(rendering, small.background)) / 2
        alpha = layer_of(rendering, small.image.shape[-1])[1]
        depth = F.interpolate(rendering.depth, error.shape[-2:], mode="bilinear", align_corners=False)
        change, share = _corrections(texels, torch.cat([error * alpha, depth, outside], 1))
        texture = texture + visibility.seen * is_open * texels.atlas(change * share, size)
        teeth = teeth + _mean_of_teeth(texels, *_corrections(texels, torch.cat([error * alpha, depth, inside], 1)))
        is_hair = alpha * small.matte * (1 - seen.is_hit * (depth > seen.values[:, :1] - _IN_FRONT))
        hair = torch.cat([error, depth, is_hair], 1)
        tint = tint + _hair_correction(generator.config.box, target.camera, hair, tint, cast.views[0])
    return maps | {"texture": visibility.complete(texture) * is_open + teeth * island, "tint": tint}


def _at_size(maps: Tensor | None, zeros: Float[Tensor, "batch channels size size"]) -> Tensor:
    """Return maps at the size of zeros, which stand for maps that are not there."""
    if maps is None:
        return zeros
    return F.interpolate(maps, zeros.shape[-2:], mode="bilinear", align_corners=False)


def _hair_correction(
    box: Box,
    camera: Float[Tensor, "batch 25"],
    maps: Float[Tensor, "batch 5 r r"],
    tint: Float[Tensor, "batch 3 s s"],
    front: ViewCast,
) -> Float[Tensor, "batch 3 s s"]:
    """Return, for a map of the hair's colour, the mean error of pixels (error, depth, share of hair) in every texel.

    The map is seen from the front: what the head hides from there, such as hair behind an ear, has no place in it.
    """
    error, depth, weight = torch.split(maps.flatten(2).transpose(1, 2), [3, 1, 1], -1)
    rays, size = camera_rays(camera, maps.shape[-1]), tint.shape[-1]
    places = box.enter(rays.origins + depth * rays.directions)
    surface = front.surface[..., :2].permute(0, 3, 1, 2)
    read = F.grid_sample(surface, places[:, None, :, :2], mode="nearest", align_corners=False)[:, :, 0]
    is_hidden = (read[:, 0] > 0) & (places[..., 2] < read[:, 1] - _BEHIND)
    weight = weight * ~is_hidden[..., None]
    texel = ((places[..., :2] * 0.5 + 0.5) * size).long().clamp(0, size - 1)
    row = texel[..., 1] * size + texel[..., 0] + torch.arange(len(tint), device=tint.device)[:, None] * size**2
    values = torch.cat([error * weight, weight], -1).flatten(0, 1)
    total = values.new_zeros(len(tint) * size**2, 4).index_add(0, row.flatten(), values)
    mean = total[:, :3] / (total[:, 3:] + _SPARSE_HAIR)
    return mean.view(len(tint), size, size, 3).permute(0, 3, 1, 2)


def _corrections(
    texels: _Texels, maps: Float[Tensor, "batch 5 r r"]
) -> tuple[Float[Tensor, "batch n 3"], Float[Tensor, "batch n 1"]]:
    """Return how far the reflectance of texels is off by pixels (error, depth, mask), and how surely they show it."""
    read = F.grid_sample(maps, texels.places[:, None], align_corners=False, padding_mode="border")[:, :, 0]
    error, depth, mask = torch.split(read.transpose(1, 2), [3, 1, 1], -1)
    change = (error / texels.light.clamp_min(_LEAST_LIGHT)).clamp(-_LARGEST_STEP, _LARGEST_STEP)
    return change, mask * (2 - (texels.distance[..., None] - depth) / _IN_FRONT).clamp(0, 1)


def _mean_of_teeth(
    texels: _Texels, change: Float[Tensor, "batch n 3"], share: Float[Tensor, "batch n 1"]
) -> Float[Tensor, "batch 3 1 1"]:
    """Return the mean change over the teeth that are seen; none where too few are."""
    weight = share * texels.is_tooth[:, None]
    total = weight.sum(1)
    mean = (change * weight).sum(1) / total.clamp_min(1)
    return (mean * (total >= _LEAST_TEETH))[..., None, None]


def _see_texels(
    generator: AnchoredGenerator,
    head: HeadCoefficients,
    camera: Float[Tensor, "batch 25"],
    light: Float[Tensor, "batch 27 1 1"],
    size: int,
) -> _Texels:
    """Return how cameras see the texels of an atlas of `size` on lit heads."""
    mesh, texels = generator.mesh, AtlasTexels.of(generator.mesh, size)
    vertices = generator.caster.surface(head)
    values = torch.cat([vertices, vertex_normals(vertices, mesh.faces), mouth_shade(mesh, vertices)], -1)
    points, normals, shade = torch.split(texels.interpolate(values[:, mesh.faces]), 3, dim=-1)
    image, _ = project(points, camera)
    distance = (points - unpack_label(camera)[0][:, None, :3, 3]).norm(dim=-1)
    shadow = F.interpolate(generator.light.shadow(light), (size, size), mode="bilinear", align_corners=False)
    falling = harmonic_shading(light, F.normalize(normals, dim=-1)[:, None])[:, 0]
    falling = (falling + shadow[:, :, texels.rows, texels.columns].transpose(1, 2)) * (1 - shade)
    is_tooth = (mesh.part[texels.triangle] == mesh.part_names.index("teeth")).to(falling.dtype)
    return _Texels(image * 2 - 1, distance, falling, is_tooth, texels.rows, texels.columns)


def _see_mesh(
    generator: AnchoredGenerator, head: HeadCoefficients, camera: Float[Tensor, "batch 25"], size: int
) -> SeenSurface:
    """Return the distance of the mesh from cameras, and 1 where it is the inside of a mouth."""
    mesh, vertices = generator.mesh, generator.caster.surface(head)
    distance = (vertices - unpack_label(camera)[0][:, None, :3, 3]).norm(dim=-1, keepdim=True)
    values = torch.cat([distance, inside_vertices(mesh).expand(len(vertices), -1, -1)], -1)
    return see_surface(vertices, mesh.faces, values, Pose.of_photo(camera), size)
