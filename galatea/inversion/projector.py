"""Latent projection: the `w_plus` whose rendering comes closest to a photo (Karras et al. 2020; Roich et al. 2022).

Where we differ: a search over typical codes picks the start, `w_plus` (or, where codes have a meaning, the code) is
optimised from its first step but held near the start, and all of it runs at a low resolution first: the latent carries
no fine detail anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from galatea.cameras import orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.errors import ConfigError
from galatea.inversion.binding import PortraitGenerator, TunedView, View, cast_once
from galatea.inversion.matching import difference, match_hair, match_hair_style, match_light
from galatea.inversion.objective import Objective
from galatea.inversion.optimisation import Group, minimise
from galatea.inversion.target import InversionTarget

_CANDIDATE_BATCH = 8
_MATCHED_FIELDS = ("hair_style", "hair_color", "light_direction", "light_color", "sky_color", "ground_color")


@dataclass(frozen=True)
class ProjectionConfig:
    """How latents are projected.

    Attributes:
        num_steps: optimisation steps.
        lr: peak learning rate of `w_plus`, in standard deviations of `w`.
        num_candidates: codes that are tried as starts.
        resolution: size at which images are compared, at most the generator's rendering resolution.
        search_resolution: size at which starts are compared.
        hold: weight of the squared distance from the start, in standard deviations.
    """

    num_steps: int = 16
    lr: float = 0.12
    num_candidates: int = 24
    resolution: int = 48
    search_resolution: int = 32
    hold: float = 0.01

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        for name, low in (("num_steps", 0), ("num_candidates", 1), ("resolution", 8), ("search_resolution", 8)):
            if getattr(self, name) < low:
                raise ConfigError(f"projection.{name}: expected at least {low}, got {getattr(self, name)}")
        for name in ("lr", "hold"):
            if getattr(self, name) < 0:
                raise ConfigError(f"projection.{name}: expected at least 0, got {getattr(self, name)}")


@dataclass(frozen=True)
class LatentStatistics:
    """Typical `w` of a generator: mean, overall standard deviation, and examples that can serve as starts, with their
    codes (None for generators whose codes mean nothing).
    """

    mean: Float[Tensor, "w_dim"]
    deviation: Float[Tensor, ""]
    examples: Float[Tensor, "n num_ws w_dim"]
    codes: Float[Tensor, "n z_dim"] | None


@dataclass(frozen=True)
class Start:
    """Where the projection of a batch starts; residual maps that are known without optimisation stay as they are.

    `codes` are those that `ws` comes from, but for the hair's colour; None where codes mean nothing.
    """

    ws: Float[Tensor, "batch num_ws w_dim"]
    residuals: Mapping[str, Tensor]
    codes: Float[Tensor, "batch z_dim"] | None


@dataclass(frozen=True)
class Projection:
    """Projected latents of a batch, and the residual maps of their start."""

    w_plus: Float[Tensor, "batch num_ws w_dim"]
    residuals: Mapping[str, Tensor]


@torch.no_grad()
def latent_statistics(generator: PortraitGenerator, num_examples: int = 128, seed: int = 0) -> LatentStatistics:
    """Return where latents of this generator usually lie; deterministic.

    Semantic generators bring typical codes along (`typical_codes`); the others take standard normal z.
    """
    device = generator.w_avg.device
    codes = getattr(generator, "typical_codes", None)
    is_semantic = codes is not None and len(codes) > 0
    if codes is None or not is_semantic:
        codes = torch.randn(num_examples, generator.z_dim, generator=torch.Generator().manual_seed(seed)).to(device)
    codes = codes[:num_examples].float()
    frontal = orbit(torch.zeros(1, device=device), torch.zeros(1, device=device)).expand(len(codes), 25)
    ws = generator.mapping(codes, frontal)
    mean = ws[:, 0].mean(0)
    deviation = (ws[:, 0] - mean).square().mean().sqrt().clamp_min(1e-4)
    known = torch.cat([codes.mean(0, keepdim=True), codes]) if is_semantic else None
    return LatentStatistics(mean, deviation, torch.cat([mean.expand(1, *ws.shape[1:]), ws]), known)


@torch.no_grad()
def search_start(
    generator: PortraitGenerator, target: InversionTarget, statistics: LatentStatistics, config: ProjectionConfig
) -> Start:
    """Return, for every portrait, the mean of the three examples that look most like it, lit and haired like it.

    Where codes have a meaning they are averaged, and the style of the hair is tried out after: between two styles
    there is only a ghost of both.
    """
    small = target.at(config.search_resolution)
    best = torch.stack([_closest(generator, small.select(i), statistics, config) for i in range(len(target.image))])
    ws = statistics.examples[best].mean(1)
    residuals, codes = match_light(generator, target, ws), None
    if statistics.codes is not None and isinstance(generator, AnchoredGenerator):
        codes = match_hair_style(generator, small, statistics.codes[best].mean(1), residuals)
        ws = generator.mapping(codes)
        residuals = match_light(generator, target, ws)
    return Start(match_hair(generator, small, ws, residuals), residuals, codes)


def _closest(
    generator: PortraitGenerator, one: InversionTarget, statistics: LatentStatistics, config: ProjectionConfig
) -> Int[Tensor, "3"]:
    """Return which three of the examples look most like a portrait."""
    head, errors = cast_once(generator, one.head), []
    for ws in torch.split(statistics.examples[: config.num_candidates], _CANDIDATE_BATCH):
        errors.append(difference(generator, generator.planes(ws, head), ws, one))
    return torch.cat(errors).argsort()[:3]


def project(
    generator: PortraitGenerator,
    target: InversionTarget,
    objective: Objective,
    statistics: LatentStatistics,
    config: ProjectionConfig,
) -> Projection:
    """Project a batch of portraits into the latent space of a generator.

    Raises:
        FitError: if the optimisation diverges.
    """
    start = search_start(generator, target, statistics, config)
    size = min(config.resolution, generator.neural_rendering_resolution)
    small = target.at(size)
    head = cast_once(generator, target.head)
    view = TunedView(generator)
    latents = _latents(generator, start, statistics)
    # One tensor a portrait: damping looks at whole tensors, and portraits shall not influence each other.
    offsets = [torch.zeros_like(one, requires_grad=True) for one in (start.ws if start.codes is None else start.codes)]

    def loss(_step: int) -> Tensor:
        offset = torch.stack(offsets)
        (rendering,) = view(latents(offset), head, start.residuals, [View(target.camera, size)])
        held = config.hold * offset.square().flatten(1).mean(1)
        return objective(rendering, small) + held

    # Damped, fields that the photo says nothing about stay where they are.
    minimise(loss, [Group(offsets, config.lr, is_damped=start.codes is not None)], config.num_steps)
    with torch.no_grad():
        return Projection(latents(torch.stack(offsets)), start.residuals)


def _latents(
    generator: PortraitGenerator, start: Start, statistics: LatentStatistics
) -> Callable[[Tensor], Float[Tensor, "batch num_ws w_dim"]]:
    """Return what makes `w_plus` of the numbers that are optimised, which are zero at the start.

    They are standard deviations of w, so that one learning rate fits every generator; or of the code where codes have a
    meaning: what leaves the codes of people leaves people, for noise and colours that nobody has. Style and colour
    of the hair stay, and so does the light.
    """
    codes = start.codes
    if codes is None or not isinstance(generator, AnchoredGenerator):
        return lambda offset: start.ws + offset * statistics.deviation
    step = generator.code_statistics[1].clone()
    for name, place in generator.code_fields.items():
        if name in _MATCHED_FIELDS:
            step[place] = 0
    with torch.no_grad():
        beyond = start.ws - generator.mapping(codes)
    return lambda offset: generator.mapping(codes + offset * step) + beyond
