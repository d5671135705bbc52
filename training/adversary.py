"""Adversarial training: a discriminator of patches that sees them at two scales, and R1.

As in EG3D (Chan et al. 2022, section 4.4) the discriminator looks at two resolutions of the same picture at once (dual
discrimination) and knows the camera; it sees patches of several strides, of which it is told (GRAM-HD, Xiang et al.
2023, and EpiGRAF, Skorokhodov et al. 2022, train so where whole images cannot be rendered).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.mapping import LRELU_GAIN, LRELU_SLOPE, FullyConnectedLayer
from training.head_images import PATCH, PatchBatch

_COARSE = 4
"""The second of the two resolutions is so many times smaller."""
_STRIDES = (1, 2, 4, 8)


class PatchDiscriminator(nn.Module):
    """Says how real patches look: residual blocks that halve them (Karras et al. 2020), with conditional output.

    Args:
        width: channels of the first block.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width, 4 * width)
        self.enter = _Convolution(8, width, 1)
        self.blocks = nn.ModuleList(_Halving(a, b) for a, b in pairwise(widths))
        side = PATCH >> len(self.blocks)
        self.last = _Convolution(widths[-1] + 1, widths[-1], 3)
        self.out = FullyConnectedLayer(widths[-1] * side * side, widths[-1], "lrelu")
        self.condition = FullyConnectedLayer(25 + len(_STRIDES), widths[-1])
        self.score = FullyConnectedLayer(widths[-1], 1)

    def forward(
        self, patches: Float[Tensor, "n 4 32 32"], camera: Float[Tensor, "n 25"], stride: int
    ) -> Float[Tensor, "n"]:
        """Return scores, high for real ones.

        Args:
            patches: colour times opacity, and opacity, 0..1.
            camera: labels.
            stride: pixels between the patches' rays.
        """
        coarse = F.interpolate(F.avg_pool2d(patches, _COARSE), PATCH, mode="bilinear", align_corners=False)
        x = self.enter(torch.cat([patches, coarse], 1) * 2 - 1)
        for block in self.blocks:
            x = block(x)
        spread = x.float().var(0, correction=0).add(1e-8).sqrt().mean().to(x.dtype)
        x = _activated(self.last(torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], 1)))
        x = self.out(x.flatten(1))
        known = F.one_hot(torch.full((len(x),), _STRIDES.index(stride), device=x.device), len(_STRIDES)).to(camera)
        wanted = F.normalize(self.condition(torch.cat([camera, known], 1)), dim=1)
        score: Tensor = (x * wanted).sum(1) + self.score(x)[:, 0]
        return score


class _Convolution(nn.Module):
    """A convolution whose weights are stored at unit scale (equalised learning rate), as `FullyConnectedLayer`'s."""

    def __init__(self, inputs: int, outputs: int, side: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, side, side))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gain = 1 / (side * math.sqrt(inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=self.weight.shape[-1] // 2)


class _Halving(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = _Convolution(inputs, inputs, 3)
        self.second = _Convolution(inputs, outputs, 3)
        self.beside = _Convolution(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = _activated(self.second(_activated(self.first(x))))
        halved: Tensor = (F.avg_pool2d(y, 2) + self.beside(F.avg_pool2d(x, 2))) * 0.5**0.5
        return halved


def _activated(x: Tensor) -> Tensor:
    return F.leaky_relu(x, LRELU_SLOPE) * LRELU_GAIN


class Adversary:
    """A discriminator in training.

    Args:
        learning_rate: of Adam.
        r1_weight: of the gradient penalty on real patches (Mescheder et al. 2018).
        r1_every: steps between penalties, which are weighted accordingly.
        device: where it lives.
    """

    def __init__(self, learning_rate: float, r1_weight: float, r1_every: int, device: torch.device) -> None:
        self.network = PatchDiscriminator().to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), learning_rate, betas=(0.0, 0.99))
        self.r1_weight, self.r1_every, self.steps = r1_weight, r1_every, 0

    def generator_loss(self, fake: Float[Tensor, "n 4 32 32"], batch: PatchBatch) -> Tensor:
        """Return how far the patches are from passing as real; gradients reach the patches only."""
        self.network.requires_grad_(False)
        with torch.autocast(fake.device.type, torch.bfloat16):
            score: Tensor = self.network(fake, batch.camera, batch.stride)
        return F.softplus(-score.float()).mean()

    def learn(self, fake: Float[Tensor, "n 4 32 32"], batch: PatchBatch) -> dict[str, float]:
        """Do one step of the discriminator; returns its losses."""
        self.network.requires_grad_(True)
        has_penalty = self.steps % self.r1_every == 0
        real = torch.cat([batch.colour, batch.alpha], 1).requires_grad_(has_penalty)
        with torch.autocast(fake.device.type, torch.bfloat16, enabled=not has_penalty):
            of_real = self.network(real, batch.camera, batch.stride).float()
            of_fake = self.network(fake.detach(), batch.camera, batch.stride).float()
        loss = F.softplus(-of_real).mean() + F.softplus(of_fake).mean()
        total = loss
        if has_penalty:
            (gradient,) = torch.autograd.grad(of_real.sum(), real, create_graph=True)
            penalty = gradient.square().sum((1, 2, 3)).mean()
            total = loss + 0.5 * self.r1_weight * self.r1_every * penalty
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.steps += 1
        return {"discriminator": float(loss.detach()), "margin": float((of_real.mean() - of_fake.mean()).detach())}

    def state(self) -> dict[str, Tensor]:
        """Return everything that training goes on from, as named tensors."""
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{name}": value for name, value in values.items()}
        return tensors | {"steps": torch.tensor(self.steps)}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from a state; an empty one leaves the start as it is."""
        if not tensors:
            return
        prefix = "network."
        self.network.load_state_dict({n[len(prefix) :]: v for n, v in tensors.items() if n.startswith(prefix)})
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state})
        self.steps = int(tensors["steps"])
