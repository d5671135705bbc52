"""Inverting portraits: projection, pivotal tuning, and the capsule that comes of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.inversion.binding import PortraitGenerator, TunedView, View, full_maps
from galatea.inversion.capsule import Capsule
from galatea.inversion.lifting import LiftingConfig, lift_texture
from galatea.inversion.objective import LossWeights, Objective, shown
from galatea.inversion.pivotal import TuningConfig, tune
from galatea.inversion.projector import LatentStatistics, ProjectionConfig, project
from galatea.inversion.target import InversionTarget
from galatea.metrics.quality import psnr, ssim


@dataclass(frozen=True)
class InversionConfig:
    """Settings of an inversion.

    Attributes:
        projection: of the latent.
        tuning: of the residual maps or weight changes.
        losses: weights of the loss terms.
        lifting: of the photo into the texture, where a generator has one.
    """

    projection: ProjectionConfig = field(default_factory=ProjectionConfig)
    tuning: TuningConfig = field(default_factory=TuningConfig)
    losses: LossWeights = field(default_factory=LossWeights)
    lifting: LiftingConfig = field(default_factory=LiftingConfig)


@dataclass(frozen=True)
class Inversion:
    """An inverted batch.

    Attributes:
        capsules: one for each portrait.
        reconstruction: over the photo's background, at the generator's image size, [-1, 1].
        psnr: inside the face, dB.
        ssim: inside the face.
    """

    capsules: tuple[Capsule, ...]
    reconstruction: Float[Tensor, "batch 3 size size"]
    psnr: Float[Tensor, "batch"]
    ssim: Float[Tensor, "batch"]


@dataclass(frozen=True)
class GeneratorIdentity:
    """Which checkpoint a capsule belongs to."""

    name: str
    sha256: str


def invert(
    generator: PortraitGenerator,
    identity: GeneratorIdentity,
    target: InversionTarget,
    statistics: LatentStatistics,
    config: InversionConfig | None = None,
) -> Inversion:
    """Invert a batch of portraits.

    Args:
        generator: frozen; its parameters get no gradients.
        identity: name and hash of its checkpoint.
        target: photos, fitted cameras and heads.
        statistics: from `latent_statistics`, once for each generator.
        config: None takes the defaults.

    Raises:
        FitError: if the optimisation diverges.
        ConfigError: if the generator can only be tuned for one portrait at a time and got more.
    """
    config = config or InversionConfig()
    objective = Objective(config.losses)
    for parameter in generator.parameters():
        parameter.requires_grad_(False)
    projection = project(generator, target, objective, statistics, config.projection)
    tuning = tune(generator, target, projection, objective, config.tuning)
    residuals = tuning.residuals
    if isinstance(generator, AnchoredGenerator):
        residuals = lift_texture(generator, target, projection.w_plus, residuals, config.lifting)
    with torch.no_grad():
        view = View(target.camera, generator.neural_rendering_resolution)
        args = (projection.w_plus, target.head, full_maps(generator, residuals), [view])
        (rendering,) = TunedView(generator).with_delta(tuning.delta, *args)
        reconstruction = shown(rendering, target.background)
        quality = psnr(reconstruction, target.image, target.face), ssim(reconstruction, target.image, target.face)
    empty = target.camera.new_zeros(len(target.image), 0)
    coefficients = (empty, empty) if target.head is None else (target.head.identity, target.head.expression)
    capsules = tuple(
        Capsule(
            w_plus=projection.w_plus[index],
            camera=target.camera[index],
            identity=coefficients[0][index],
            expression=coefficients[1][index],
            generator=identity.name,
            generator_sha256=identity.sha256,
            residuals={name: value[index] for name, value in residuals.items()},
            delta=tuning.delta,
            metrics={
                "psnr": float(quality[0][index]),
                "ssim": float(quality[1][index]),
                "side_change": float(tuning.side_change[index]),
                "num_steps": float(config.projection.num_steps + config.tuning.num_steps),
            },
        )
        for index in range(len(target.image))
    )
    return Inversion(capsules, reconstruction.clamp(-1, 1), *quality)
