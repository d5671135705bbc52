"""Frechet distance between pictures, in a feature space of our own: colour and edge statistics in a pyramid.

The usual space (Inception) may not be used commercially and knows no synthetic heads. Ours has 36 numbers a picture:
mean and spread of each colour and the mean of its gradients, at four scales, in units of their spread over the true
pictures. It sees tone, contrast, softness and fog, not identity; its values compare only with each other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

NUM_SCALES = 4
_RIDGE = 0.05
"""Added to variances of the standardised features: a few dozen pictures do not determine all of them."""


def picture_statistics(images: Float[Tensor, "n 3 size size"]) -> Float[Tensor, "n 36"]:
    """Return the features of pictures."""
    features = []
    for _ in range(NUM_SCALES):
        across, down = images.diff(dim=3).abs().mean((2, 3)), images.diff(dim=2).abs().mean((2, 3))
        features += [images.mean((2, 3)), images.std((2, 3)), across + down]
        images = F.avg_pool2d(images, 2)
    return torch.cat(features, 1)


def frechet_distance(found: Float[Tensor, "n 3 size size"], truth: Float[Tensor, "m 3 size size"]) -> float:
    """Return the Frechet distance (Heusel et al. 2017, equation 6) of pictures in `picture_statistics`."""
    wanted = picture_statistics(truth).double()
    scale, centre = wanted.std(0).clamp_min(1e-6), wanted.mean(0)
    ours, theirs = (picture_statistics(found).double() - centre) / scale, (wanted - centre) / scale
    unit = _RIDGE * torch.eye(theirs.shape[1], dtype=theirs.dtype)
    first, second = torch.cov(ours.T) + unit, torch.cov(theirs.T) + unit
    root = _root(second)
    cross = _root(root @ first @ root)
    difference = (ours.mean(0) - theirs.mean(0)).square().sum()
    return float(difference + torch.trace(first + second - 2 * cross))


def _root(matrix: Float[Tensor, "k k"]) -> Float[Tensor, "k k"]:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    root: Tensor = vectors @ torch.diag(values.clamp_min(0).sqrt()) @ vectors.T
    return root
