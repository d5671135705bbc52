"""Latents for expressions of a generator without a head: one `w` for each target picture, then one tuning for all.

Lin et al. 2022 (arXiv 2203.13441), as their released code does it: every target has its own `w`,
warm-started from the one before (100 steps each), then the generator is tuned on all targets at once. Where we differ:
the start is the portrait's inversion, so that the first target needs no 2000 steps; each `w` is a change that is added
to all layers of the portrait's `w_plus`; tuning changes weights by low-rank factors; losses are those of our inversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.errors import ConfigError
from galatea.inversion.binding import PortraitGenerator, TunedView, View, new_delta, personal_generator
from galatea.inversion.objective import shown
from galatea.inversion.optimisation import Group, minimise
from galatea.losses import gradient_loss, l1_loss

_REST = 0.2
"""Weight of what is not known of a target (the photo stands there) against the face."""


@dataclass(frozen=True)
class TransferSettings:
    """How expressions are found.

    Attributes:
        pivot_steps: optimisation steps for each target (the paper: 100).
        pivot_lr: peak learning rate of `w`, in its standard deviations (the paper: 0.025, in units of `w`).
        tuning_steps: steps of the tuning for all targets (the paper: 2000).
        tuning_lr: its learning rate (the paper: 1e-3, on all weights).
        tuning_batch: targets in a step of the tuning.
        delta_rank: rank of the weight changes.
    """

    pivot_steps: int = 100
    pivot_lr: float = 0.05
    tuning_steps: int = 400
    tuning_lr: float = 2e-3
    tuning_batch: int = 2
    delta_rank: int = 8

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        for name, low in (("pivot_steps", 1), ("tuning_steps", 0), ("tuning_batch", 1), ("delta_rank", 1)):
            if getattr(self, name) < low:
                raise ConfigError(f"transfer.{name}: expected at least {low}, got {getattr(self, name)}")
        for name in ("pivot_lr", "tuning_lr"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"transfer.{name}: expected more than 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class Portrait:
    """What expressions are added to.

    Attributes:
        generator: with the portrait's own weight changes; frozen.
        ws: the portrait's latent.
        camera: the photo's.
        deviation: of `w` in this generator.
    """

    generator: PortraitGenerator
    ws: Float[Tensor, "1 num_ws w_dim"]
    camera: Float[Tensor, "1 25"]
    deviation: float


@dataclass(frozen=True)
class Targets:
    """Pictures that the latents are to show, and where they count most."""

    image: Float[Tensor, "frames 3 size size"]
    known: Float[Tensor, "frames 1 size size"]

    def loss(self, image: Float[Tensor, "frames 3 size size"], index: Tensor) -> Float[Tensor, "frames"]:
        """Return the loss of pictures against the targets of these numbers."""
        target, weight = self.image[index], self.known[index] + _REST * (1 - self.known[index])
        return l1_loss(image, target, weight) + gradient_loss(image, target, weight)


def find_pivots(
    portrait: Portrait, targets: Targets, settings: TransferSettings
) -> Float[Tensor, "frames num_ws w_dim"]:
    """Return a latent for each target; each starts where the one before ended.

    Raises:
        FitError: if the optimisation diverges.
    """
    start, found = torch.zeros_like(portrait.ws[:, :1]), []
    for number in range(len(targets.image)):
        index = torch.tensor([number], device=portrait.ws.device)
        change = start.clone().requires_grad_()

        def loss(_step: int, change: Tensor = change, index: Tensor = index) -> Tensor:
            image = _seen(portrait, portrait.ws + change * portrait.deviation, targets.image.shape[-1], {})
            return targets.loss(image, index)

        minimise(loss, [Group([change], settings.pivot_lr)], settings.pivot_steps)
        start = change.detach()
        found.append(portrait.ws + start * portrait.deviation)
    return torch.cat(found)


def tune_on_all(
    portrait: Portrait,
    pivots: Float[Tensor, "frames num_ws w_dim"],
    targets: Targets,
    settings: TransferSettings,
    seed: int = 0,
) -> PortraitGenerator:
    """Return the generator, tuned so that every pivot shows its target.

    Raises:
        FitError: if the optimisation diverges.
    """
    if not settings.tuning_steps:
        return portrait.generator
    delta = new_delta(portrait.generator, settings.delta_rank, seed)
    delta = {name: value.requires_grad_() for name, value in delta.items()}
    draw = torch.Generator().manual_seed(seed)

    def loss(_step: int) -> Tensor:
        chosen = torch.randint(len(pivots), (settings.tuning_batch,), generator=draw).to(pivots.device)
        return targets.loss(_seen(portrait, pivots[chosen], targets.image.shape[-1], delta), chosen)

    minimise(loss, [Group(list(delta.values()), settings.tuning_lr)], settings.tuning_steps)
    return personal_generator(portrait.generator, {name: value.detach() for name, value in delta.items()})


def _seen(
    portrait: Portrait, ws: Float[Tensor, "frames num_ws w_dim"], size: int, delta: Mapping[str, Tensor]
) -> Float[Tensor, "frames 3 size size"]:
    view = View(portrait.camera.expand(len(ws), 25), portrait.generator.neural_rendering_resolution)
    (rendering,) = TunedView(portrait.generator).with_delta(delta, ws, None, {}, [view])
    # These generators render over black.
    return shown(rendering, -ws.new_ones(len(ws), 3, size, size))
