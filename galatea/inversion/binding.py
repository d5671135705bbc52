"""A generator bound to the residual maps or weight changes of its portraits."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.generator import Rendering, TriPlaneGenerator
from galatea.errors import InputError
from galatea.morphable.head import HeadCoefficients, HeadModel

PortraitGenerator = TriPlaneGenerator | AnchoredGenerator
Head = Any
"""Whatever `planes` accepts as a head: coefficients, for an anchored generator also their cast, or None."""
_LEFT, _RIGHT = ".left", ".right"
_TUNED_PREFIXES = ("backbone.synthesis.", "superresolution.", "decoder.")
"""Pivotal tuning changes what paints and renders, never the mapping (Roich et al. 2022, section 3.2)."""


def cast_once(generator: PortraitGenerator, head: HeadCoefficients | None) -> Head:
    """Return the head in the form that is cheapest to pass to `planes` many times."""
    if isinstance(generator, AnchoredGenerator) and head is not None:
        return generator.cast(head)
    return head


def full_maps(
    generator: PortraitGenerator, maps: Mapping[str, Float[Tensor, "batch channels rows columns"]]
) -> dict[str, Tensor]:
    """Return residual maps at the sizes that the generator reads; stored ones may be smaller.

    Raises:
        InputError: if a map is not one of this generator's.
    """
    full = {}
    for name, value in maps.items():
        shape = generator.residual_shapes.get(name)
        if shape is None or value.ndim != 4 or value.shape[1] != shape[0]:
            raise InputError(f"residual map {name}: expected one of {dict(generator.residual_shapes)}, got another")
        size = shape[-2:]
        full[name] = value if value.shape[-2:] == size else F.interpolate(value, size, mode="bilinear")
    return full


def mesh_of(generator: PortraitGenerator) -> HeadModel | None:
    """Return the head mesh that an anchored generator paints; None for a plain one."""
    return generator.mesh if isinstance(generator, AnchoredGenerator) else None


@dataclass(frozen=True)
class View:
    """A camera (one, or one a portrait) and the resolution of the volume rendering."""

    camera: Float[Tensor, "batch 25"]
    resolution: int


class TunedView(nn.Module):
    """Planes and renderings of them in one call, so that changed weights can be passed to all of it."""

    def __init__(self, generator: PortraitGenerator) -> None:
        super().__init__()
        self.generator = generator

    def forward(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        head: Head,
        residuals: Mapping[str, Tensor],
        views: Sequence[View],
    ) -> list[Rendering]:
        """Render portraits from several views; `head` is whatever the generator's `planes` accepts.

        Gradients of anchored generators are computed in bfloat16 (half the time of a step on a CPU); they are made
        for it.
        """
        is_low_precision = self.generator.is_anchored and torch.is_grad_enabled()
        with torch.autocast(ws.device.type, torch.bfloat16, enabled=is_low_precision):
            planes = self.generator.planes(ws, head, residuals)
            renderings = [self.generator.render(planes, view.camera, ws, view.resolution) for view in views]
        return [_in_float(rendering) for rendering in renderings]

    def with_delta(self, delta: Mapping[str, Tensor], *args: Any) -> list[Rendering]:
        """Render with low-rank weight changes added (differentiable in them)."""
        if not delta:
            return list(self(*args))
        changed = {f"generator.{name}": weight for name, weight in changed_weights(self.generator, delta).items()}
        return list(torch.func.functional_call(self, changed, args))


def _in_float(rendering: Rendering) -> Rendering:
    named = ((field.name, getattr(rendering, field.name)) for field in fields(rendering))
    values: dict[str, Any] = {name: None if value is None else value.float() for name, value in named}
    return Rendering(**values)


def new_delta(generator: PortraitGenerator, rank: int, seed: int) -> dict[str, Tensor]:
    """Return low-rank factors of no change (left factors are 0) for every tunable weight matrix.

    A weight (out, ...) is seen as a matrix (out, rest), as LoRA does (Hu et al. 2021): `left @ right` is added to it.
    """
    draw = torch.Generator().manual_seed(seed)
    delta: dict[str, Tensor] = {}
    for name, weight in generator.named_parameters():
        if not name.startswith(_TUNED_PREFIXES) or weight.ndim < 2 or "affine" in name:
            continue
        rows, columns = weight.shape[0], weight[0].numel()
        size = min(rank, rows, columns)
        delta[name + _LEFT] = torch.zeros(rows, size, device=weight.device)
        right = torch.randn(size, columns, generator=draw) / columns**0.5
        delta[name + _RIGHT] = right.to(weight.device)
    return delta


def changed_weights(generator: PortraitGenerator, delta: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with their low-rank changes added.

    Raises:
        InputError: if the changes do not fit the generator.
    """
    weights = dict(generator.named_parameters())
    changed = {}
    for name in sorted(name.removesuffix(_LEFT) for name in delta if name.endswith(_LEFT)):
        left, right = delta[name + _LEFT], delta.get(name + _RIGHT)
        weight = weights.get(name)
        if weight is None or right is None or (left.shape[0], right.shape[1]) != (weight.shape[0], weight[0].numel()):
            raise InputError(f"weight change {name}: expected factors of a weight of this generator, got others")
        changed[name] = weight + (left @ right).view_as(weight)
    return changed


def personal_generator(generator: PortraitGenerator, delta: Mapping[str, Tensor]) -> PortraitGenerator:
    """Return the generator with a portrait's weight changes; the generator itself where there are none."""
    if not delta:
        return generator
    personal = copy.deepcopy(generator)
    weights = dict(personal.named_parameters())
    with torch.no_grad():
        for name, weight in changed_weights(generator, delta).items():
            weights[name].copy_(weight)
    return personal
