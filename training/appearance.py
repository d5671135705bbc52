"""Starting texture, light and hair colour from what is known without pictures, in closed form where it can be.

The texture's basis are the principal maps of synthetic heads' reflectance, region by region (else a head's large areas
would leave nothing for its irises); all that `w` steers directly is fitted to it by ridge regression.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.mapping import FullyConnectedLayer
from galatea.eg3d.painting import harmonics
from training.reflectance import HeadReflectance, falling_light

REGION_MAPS = {"skin": 8, "low": 10, "eyes": 3}
"""Basis maps of each region of the atlas; the others start from noise: brows, lashes, whatever else pictures show."""
RIDGE = 1e-3
"""Share of the mean square of `w` that is added to it when read-outs are fitted."""
NUM_NORMALS = 300


@dataclass(frozen=True)
class TextureBasis:
    """Mean and principal maps of reflectances, and their mix for each head, with a variance of one."""

    mean: Float[Tensor, "3 size size"]
    maps: Float[Tensor, "maps 3 size size"]
    mix: Float[Tensor, "n maps"]


def texture_basis(reflectance: HeadReflectance, codes: Float[Tensor, "n z"]) -> TextureBasis:
    """Return the principal maps of heads' reflectance in every region."""
    atlases = torch.stack([reflectance.atlas(code) for code in codes])
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


def wanted_light(codes: Float[Tensor, "n z"], fields: Mapping[str, tuple[int, int]]) -> Float[Tensor, "n harmonics_3"]:
    """Return the harmonics of the light that falls on heads, beyond plain white light."""
    draw = torch.Generator().manual_seed(0)
    normals = torch.randn(NUM_NORMALS, 3, generator=draw) + torch.tensor([0.0, 0.0, 0.7])
    normals = F.normalize(normals, dim=-1)
    light = falling_light(codes, fields, normals) - 1
    return torch.einsum("km,nmc->nkc", torch.linalg.pinv(harmonics(normals)), light).flatten(1)


@torch.no_grad()
def fit_readouts(generator: AnchoredGenerator, basis: TextureBasis, known: tuple[Tensor, Tensor, Tensor]) -> None:
    """Fit what is read from w directly: the mix of the texture's basis, light, and colour of the hair.

    Args:
        generator: whose mapping stays as it is.
        basis: mix of the heads that `known` begins with.
        known: codes of heads (n, z), their light (n, 27) and their hair's colour (n, 3).
    """
    codes, light, hair = known
    ws = generator.mapping(codes)[:, 0]
    fit_readout(generator.texture.coefficients, ws[: len(basis.mix)], basis.mix)
    fit_readout(generator.light.read, ws, light)
    fit_readout(generator.tint.read, ws, hair)


def start_appearance(
    generator: AnchoredGenerator, reflectance: HeadReflectance, codes: Float[Tensor, "n z"], num_steps: int
) -> list[float]:
    """Start texture, light and hair colour from what is known without pictures.

    Returns:
        The loss of every step in which the mapping network was fitted along.
    """
    basis = texture_basis(reflectance, codes)
    light = wanted_light(codes, reflectance.fields)
    hair = codes[:, slice(*reflectance.fields["hair_color"])]
    with torch.no_grad():
        generator.texture.mean.copy_(basis.mean)
        generator.texture.basis[: len(basis.maps)] = basis.maps
    fit_readouts(generator, basis, (codes, light, hair))
    return _fit_mapping(generator, codes, (basis.mix, light, hair), num_steps)


def _fit_mapping(
    generator: AnchoredGenerator, codes: Tensor, wanted: tuple[Tensor, Tensor, Tensor], num_steps: int
) -> list[float]:
    """Fit mapping network and read-outs together: products of fields (light times direction) need its hidden layer."""
    reads = (generator.texture.coefficients, generator.light.read, generator.tint.read)
    modules = (generator.mapping_network, *reads)
    optimizer = torch.optim.Adam([p for module in modules for p in module.parameters()], 2e-3)
    losses = []
    for step in range(num_steps):
        w = generator.mapping(codes)[:, 0]
        found = [read(w) for read in reads]
        errors = [(a[:, : b.shape[1]] - b).square().mean() / b.var() for a, b in zip(found, wanted, strict=True)]
        loss = torch.stack(errors).sum()
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (1 - step / num_steps)
        losses.append(float(loss.detach()))
    return losses
