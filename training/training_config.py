"""How the generator is trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class TrainingConfig:
    """How the generator is trained.

    Attributes:
        minutes: training time.
        heads: head states a step.
        views: patches of each, from its cameras in turn.
        learning_rate: peak of Adam's, for what starts from noise.
        map_learning_rate: of the basis maps.
        code_learning_rate: of what starts fitted: mapping network, coefficients, light, hair's tint.
        convolution_learning_rate: of the convolutions that fuse planes, whose weights are not at unit scale.
        ema_decay: of the averaged weights that are published.
        alpha_weight: weight of the opacity loss.
        edge_weight: weight of the loss on differences between neighbouring pixels.
        detail_weight: weight of eyes, mouth and brows (1 elsewhere).
        hair_weight: weight of the loss on density where hair is, and where it is not.
        reflectance_weight: weight of the loss on the texture of eyes and clothes.
        hair_points: points per head for the hair's density.
        render_every: every so many steps patches are rendered; the others are cheap, on what is known.
        coarse_share: part of the time with planes of half the size.
        adversarial_weight: weight of the discriminator's opinion; 0 trains by reconstruction alone.
        adversarial_from: share of the training time after which the discriminator joins.
        discriminator_rate: its learning rate.
        r1_weight: of the penalty on its gradients at real patches.
        r1_every: steps between penalties.
        device: where everything is computed.
        seed: of everything random.
    """

    minutes: float = 60.0
    heads: int = 4
    views: int = 4
    learning_rate: float = 3e-3
    map_learning_rate: float = 1e-3
    code_learning_rate: float = 8e-4
    convolution_learning_rate: float = 5e-4
    ema_decay: float = 0.998
    alpha_weight: float = 0.5
    edge_weight: float = 1.0
    detail_weight: float = 3.0
    hair_weight: float = 0.3
    reflectance_weight: float = 0.5
    hair_points: int = 1024
    render_every: int = 1
    coarse_share: float = 0.5
    adversarial_weight: float = 0.0
    adversarial_from: float = 0.5
    discriminator_rate: float = 2e-3
    r1_weight: float = 1.0
    r1_every: int = 16
    device: str = "cpu"
    seed: int = 0


PRESETS: Mapping[str, TrainingConfig] = MappingProxyType(
    {
        "cpu": TrainingConfig(),
        "gpu": TrainingConfig(heads=16, adversarial_weight=0.02, coarse_share=0.3, device="cuda"),
    }
)
"""For two cores, and for one GPU."""
