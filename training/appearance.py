"""Starting texture, light and hair colour from what is known without pictures, in closed form where it can be.

The texture's basis are the principal maps of synthetic heads' reflectance, region by region (else a head's large areas
would leave nothing for its irises); all that `w` steers directly is fitted to it by ridge regression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.lighting import NUM_HARMONICS
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.inversion.open_maps import open_texture
from training.reflectance import HeadReflectance, clothes, lamps

REGION_MAPS = {"skin": 8, "low": 4, "eyes": 3}
"""Basis maps of each region of the atlas, bare of clothes; the others start from noise: brows, lashes, whatever else
pictures show."""
RIDGE = 1e-3
"""Share of the mean square of `w` that is added to it when read-outs are fitted."""


@dataclass(frozen=True)
class TextureBasis:
    """Mean and principal maps of reflectances, and their mix for each head, with a variance of one."""

    mean: Float[Tensor, "3 size size"]
    maps: Float[Tensor, "maps 3 size size"]
    mix: Float[Tensor, "n maps"]


def texture_basis(reflectance: HeadReflectance, codes: Float[Tensor, "n z"]) -> TextureBasis:
    """Return the principal maps of heads' reflectance in every region."""
    atlases = torch.stack([reflectance.atlas(code, is_clothed=False) for code in codes])
    mean = atlases.mean(0)
    maps, mixes = [], []
    for name, count in REGION_MAPS.items():
        centred = ((atlases - mean) * reflectance.regions[name]).flatten(1)
        values, vectors = torch.linalg.eigh(centred @ centred.T / len(codes))
        order = values.argsort(descending=True)[:count]
        mixes.append(vectors[:, order] * len(codes) ** 0.5)
        maps.append(mixes[-1].T @ centred / len(codes))
    return TextureBasis(mean, torch.cat(maps).view(-1, *mean.shape), torch.cat(mixes, 1))


@torch.no_grad()
def fit_readout(layer: FullyConnectedLayer, w: Float[Tensor, "n w_dim"], wanted: Float[Tensor, "n k"]) -> None:
    """Set the first k outputs of a linear layer so that it reads `wanted` from w (ridge regression)."""
    rows = wanted.shape[1]
    centre, target = w.mean(0), wanted.mean(0)
    x = w - centre
    gram = x.T @ x
    gram += RIDGE * gram.diagonal().mean() * torch.eye(len(gram))
    weight = torch.linalg.solve(gram, x.T @ (wanted - target)).T
    layer.weight[:rows] = weight / layer.weight_gain
    layer.bias[:rows] = (target - weight @ centre) / layer.bias_gain


Wanted = tuple[tuple[FullyConnectedLayer, Float[Tensor, "n k"]], ...]
"""Layers that read from w, and what they are to read of each head."""


def readouts(
    generator: AnchoredGenerator, codes: Float[Tensor, "n z"], fields: Mapping[str, tuple[int, int]]
) -> Wanted:
    """Return what is read from w as it stands in the codes: lamps, clothes, and the colour of the hair."""
    return (
        (generator.light.lamps, lamps(codes, fields)),
        (generator.clothes.read, clothes(codes, fields)),
        (generator.tint.read, codes[:, slice(*fields["hair_color"])]),
    )


def start_appearance(
    generator: AnchoredGenerator, reflectance: HeadReflectance, codes: Float[Tensor, "n z"], num_steps: int
) -> list[float]:
    """Start texture, light and hair colour from what is known without pictures.

    Returns:
        The loss of every step in which the mapping network was fitted along.
    """
    basis = texture_basis(reflectance, codes)
    wanted = ((generator.texture.coefficients, basis.mix), *readouts(generator, codes, reflectance.fields))
    with torch.no_grad():
        generator.texture.mean.copy_(basis.mean)
        generator.texture.basis[: len(basis.maps)] = basis.maps
        generator.texture.basis[len(basis.maps) :] *= open_texture(generator.mesh, generator.texture.size)
        generator.light.average.weight.copy_(torch.eye(3 * NUM_HARMONICS) / generator.light.average.weight_gain)
        for layer, values in wanted:
            fit_readout(layer, generator.mapping(codes)[:, 0], values)
    return _fit_mapping(generator, codes, wanted, num_steps)


def _fit_mapping(generator: AnchoredGenerator, codes: Tensor, wanted: Wanted, num_steps: int) -> list[float]:
    """Fit mapping network and read-outs together: the mix of the basis needs its hidden layer."""
    modules = (generator.mapping_network, *(layer for layer, _ in wanted))
    optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()], 2e-3)
    losses = []
    for step in range(num_steps):
        w = generator.mapping(codes)[:, 0]
        errors = [(layer(w)[:, : b.shape[1]] - b).square().mean() / b.var() for layer, b in wanted]
        loss = torch.stack(errors).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / num_steps)
        losses.append(float(loss.detach()))
    return losses
