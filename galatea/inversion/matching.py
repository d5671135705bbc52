"""What a photo says at once about latents: the light on the face and the colour of the hair.

Optimisation would need many steps to find either, and would meanwhile paint shadows onto the skin: a lid that was in
the shade of its brow would stay dark, or a lit one too bright, wherever it moves.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.lighting import NUM_HARMONICS, harmonics
from galatea.eg3d.posing import Pose
from galatea.eg3d.seen_surface import see_surface
from galatea.inversion.binding import PortraitGenerator, cast_once
from galatea.inversion.objective import shown
from galatea.inversion.target import InversionTarget
from galatea.losses import l1_loss, matte_loss
from galatea.morphable.head import HeadModel, vertex_normals

_HAIR_STEPS, _HAIR_RANGE, _MIN_HAIR_PIXELS = 3, 0.5, 12
"""Corrections of the hair's colour, the largest change of each, and pixels needed."""
_HAIR_TRIAL, _MIN_EFFECT, _HAIR_OUTLIER = -0.1, 0.3, 0.15
"""A change of the hair's colour that is tried, its least share in a pixel of hair, and the error of colour (norm, 0..1)
at which a pixel counts half."""
_UNLIKE_SKIN = 0.6
"""Difference from the face's mean colour (norm, in [-1, 1]) of what is taken for hair; a lit forehead differs less."""
_LIGHT_SIZE, _LIGHT_STEPS, _MIN_SKIN_PIXELS = 64, 2, 100
"""Size at which light is measured, corrections of it, and pixels of skin needed."""
_HOLD = (0.005, 0.02, 0.02, 0.02, 0.1, 0.1, 0.1, 0.1, 0.1)
"""How strongly each harmonic is held, against the mean square of what the skin reflects: the photo's half of the head
says little about light from behind."""
_OUTLIER, _ROBUST_STEPS = 0.06, 4
"""Difference in brightness at which a pixel (brows, highlights, hair before the face) counts half, and reweightings."""
_GRAZING = 0.25
"""Least cosine between normal and view of a pixel that light is measured on."""


@torch.no_grad()
def match_light(
    generator: PortraitGenerator, target: InversionTarget, start: Float[Tensor, "batch num_ws w_dim"]
) -> dict[str, Float[Tensor, "batch 27 1 1"]]:
    """Return the residual that gives the start the light of the photo; none for generators without light.

    What the start's skin would reflect in white light is compared with the photo: nine harmonics (Ramamoorthi and
    Hanrahan 2001) explain the ratio by the surface's direction. Colours are left to the texture.
    """
    if not isinstance(generator, AnchoredGenerator) or target.head is None:
        return {}
    small = target.at(_LIGHT_SIZE)
    head = cast_once(generator, small.head)
    normal, is_skin = _skin_normals(generator.mesh, small)
    basis = harmonics(normal).flatten(1, 2)
    own = light = generator.light(start[:, -1]).view(-1, NUM_HARMONICS, 3)
    for _ in range(_LIGHT_STEPS):
        residual = {"light": (light - own).reshape(-1, 3 * NUM_HARMONICS, 1, 1)}
        rendering = generator.render(generator.planes(start, head, residual), small.camera, start, _LIGHT_SIZE)
        reflected = _rows(rendering.image_raw * 0.5 + 0.5) / (1 + basis @ light).clamp_min(0.1)
        weight = (is_skin * (rendering.alpha > 0.9)[:, 0]).flatten(1)
        found = _fitted_light(basis, reflected, _rows(small.image * 0.5 + 0.5), weight, light)
        is_enough = weight.sum(1) >= _MIN_SKIN_PIXELS
        light = torch.where(is_enough[:, None, None], found, light)
    return {"light": (light - own).reshape(-1, 3 * NUM_HARMONICS, 1, 1)}


def _skin_normals(
    mesh: HeadModel, target: InversionTarget
) -> tuple[Float[Tensor, "batch size size 3"], Float[Tensor, "batch size size"]]:
    """Return the normals that the photo sees, and 1 where they are of the face's skin."""
    if target.head is None:
        raise ValueError("light: expected a target with a head")
    vertices = mesh.vertices(target.head.identity, target.head.expression).float()
    is_other = mesh.faces[mesh.part != mesh.part_names.index("skin")].flatten()
    skin = vertices.new_ones(vertices.shape[1], 1).index_fill(0, is_other, 0.0)
    values = torch.cat([vertex_normals(vertices, mesh.faces), skin.expand(len(vertices), -1, -1)], -1)
    seen = see_surface(vertices, mesh.faces, values, Pose.of_photo(target.camera), target.image.shape[-1])
    normal = F.normalize(seen.values[:, :3], dim=1)
    towards = target.camera[:, :16].view(-1, 4, 4)[:, :3, 2]
    facing = -(normal * towards[..., None, None]).sum(1)
    is_skin = (seen.values[:, 3] > 0.99) & (facing > _GRAZING) & (target.face[:, 0] > 0.9) & (target.matte[:, 0] > 0.9)
    return normal.permute(0, 2, 3, 1), is_skin.to(vertices.dtype)


def _fitted_light(
    basis: Float[Tensor, "batch pixels 9"],
    reflected: Float[Tensor, "batch pixels 3"],
    photo: Float[Tensor, "batch pixels 3"],
    weight: Float[Tensor, "batch pixels"],
    light: Float[Tensor, "batch 9 3"],
) -> Float[Tensor, "batch 9 3"]:
    """Return the light under which `reflected` looks like the photo; its colours stay those of the old light.

    Ridge regression towards the old light, repeated with less weight for pixels that do not fit. The change is the same
    for all colours: one for each would take skin that is redder here and paler there for coloured light from the side,
    and hair would turn green in it.
    """
    brightness = reflected.square().sum(-1)
    wanted = (reflected * (photo - reflected * (1 + basis @ light))).sum(-1)
    change, trust = torch.zeros_like(light[..., 0]), weight
    for _ in range(_ROBUST_STEPS):
        rows = basis * (trust * brightness)[..., None]
        hold = basis.new_tensor(_HOLD) * (trust * brightness).sum(1, keepdim=True) + 1e-6
        normal = rows.transpose(1, 2) @ basis + torch.diag_embed(hold)
        right = (basis * (trust * wanted)[..., None]).sum(1)
        change = torch.linalg.solve(normal, right)
        error = (reflected * (1 + basis @ (light + change[..., None])) - photo).mean(-1)
        trust = weight / (1 + (error / _OUTLIER).square())
    return light + change[..., None]


def _rows(images: Float[Tensor, "batch channels h w"]) -> Float[Tensor, "batch pixels channels"]:
    return images.flatten(2).transpose(1, 2)


@torch.no_grad()
def match_hair(
    generator: PortraitGenerator,
    target: InversionTarget,
    start: Float[Tensor, "batch num_ws w_dim"],
    residuals: Mapping[str, Tensor],
    num_steps: int = _HAIR_STEPS,
) -> Float[Tensor, "batch num_ws w_dim"]:
    """Give starts the hair colour of their photo (one for all, or one each), where the generator knows one.

    Least squares over what a change of the hair's colour changes, well inside the person. What does not fit counts
    less: where the start's hair covers the photo's forehead, the photo has nothing to say about hair.
    """
    if not isinstance(generator, AnchoredGenerator):
        return start
    head, camera = cast_once(generator, target.head), target.camera.expand(len(start), -1)
    inner = -F.max_pool2d(-target.matte, 3, 1, 1) > 0.9

    def image(change: Tensor) -> Tensor:
        tinted = generator.tint_hair(start, change)
        planes = generator.planes(tinted, head, residuals)
        shown: Tensor = generator.render(planes, camera, tinted, target.image.shape[-1]).image_raw
        return shown * 0.5 + 0.5

    photo, prior = target.image * 0.5 + 0.5, inner * _unlike_skin(target)
    for _ in range(num_steps):
        plain = image(start.new_zeros(len(start), 3))
        effect = (image(start.new_full((len(start), 3), _HAIR_TRIAL)) - plain) / _HAIR_TRIAL
        is_enough = ((effect.mean(1) > _MIN_EFFECT) & inner[:, 0]).sum((1, 2)) >= _MIN_HAIR_PIXELS
        change = _fitted_colour(effect, photo - plain, prior)
        start = generator.tint_hair(start, torch.where(is_enough[:, None], change, torch.zeros_like(change)))
    return start


def _unlike_skin(target: InversionTarget) -> Float[Tensor, "batch 1 size size"]:
    """Return near 0 where the photo has the face's mean colour, up to 1 elsewhere: foreheads and ears are no hair."""
    area = target.face.sum((2, 3), keepdim=True).clamp_min(1e-6)
    skin = (target.image * target.face).sum((2, 3), keepdim=True) / area
    distance = (target.image - skin).norm(dim=1, keepdim=True) / _UNLIKE_SKIN
    unlike: Tensor = 1 - torch.exp(-distance.pow(4)) + 1e-3
    return unlike


def _fitted_colour(
    effect: Float[Tensor, "batch 3 size size"],
    wanted: Float[Tensor, "batch 3 size size"],
    prior: Float[Tensor, "batch 1 size size"],
) -> Float[Tensor, "batch 3"]:
    """Return the change of colour whose effect is most like what is wanted, by reweighted least squares."""
    weight, change = prior, effect.new_zeros(len(effect), 3)
    for _ in range(_ROBUST_STEPS):
        power = (weight * effect.square()).sum((2, 3)) + 1e-3
        change = ((weight * effect * wanted).sum((2, 3)) / power).clamp(-_HAIR_RANGE, _HAIR_RANGE)
        error = (wanted - effect * change[..., None, None]).norm(dim=1, keepdim=True)
        weight = prior / (1 + (error / _HAIR_OUTLIER).square())
    return change


@torch.no_grad()
def match_hair_style(
    generator: AnchoredGenerator,
    target: InversionTarget,
    codes: Float[Tensor, "batch z_dim"],
    residuals: Mapping[str, Tensor],
) -> Float[Tensor, "batch z_dim"]:
    """Return codes with the one style of hair that, in the photo's colour, comes closest to the photo."""
    found = codes.clone()
    if "hair_style" not in generator.code_fields:
        return found
    styles = generator.code_fields["hair_style"]
    for index, code in enumerate(codes):
        one = target.select(index)
        own = {name: maps[index : index + 1] for name, maps in residuals.items()}
        tried = code.repeat(styles.stop - styles.start, 1)
        tried[:, styles] = torch.eye(len(tried), dtype=code.dtype, device=code.device)
        ws = match_hair(generator, one, generator.mapping(tried), own, num_steps=1)
        planes = generator.planes(ws, cast_once(generator, one.head), own)
        found[index] = tried[difference(generator, planes, ws, one).argmin()]
    return found


def difference(
    generator: PortraitGenerator, planes: Tensor, ws: Float[Tensor, "n num_ws w_dim"], one: InversionTarget
) -> Float[Tensor, "n"]:
    """Return how far renderings of several latents, at the photo's size, are from one photo."""
    rendering = generator.render(planes, one.camera.expand(len(ws), 25), ws, one.image.shape[-1])
    image = shown(rendering, one.background.expand(len(ws), -1, -1, -1))
    matte = matte_loss(rendering.alpha, one.matte.expand(len(ws), -1, -1, -1))
    return l1_loss(image, one.image, one.weight) + matte
