"""The head model as a landmark detector sees it: 468 face points and two pupils, linear in all coefficients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.morphable.correspondence import Correspondence


class LinearHead(Protocol):
    """What is needed of a head model: vertices that are linear in identity and expression."""

    @property
    def num_identity(self) -> int:
        """Number of identity coefficients."""
        ...

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """Return (batch, vertices, 3) in world space."""
        ...


@dataclass(frozen=True)
class LandmarkModel:
    """Points = mean + identity_basis @ identity + expression_basis @ expression, in world space (EG3D units).

    Attributes:
        mean: the mean head's points.
        identity_basis: movement of each point for one standard deviation.
        expression_basis: movement of each point for a coefficient of one, *as the detector reports it*: an action that
            the detector sees at half its size has half its movement here, so that a fit returns the true coefficient.
        weight: reliability of each point, 1 / variance with the variance in (fractions of the inter-pupil distance)^2.
        pupil_distance: of the mean head, world units.
    """

    mean: Float[Tensor, "points 3"]
    identity_basis: Float[Tensor, "points 3 identity"]
    expression_basis: Float[Tensor, "points 3 52"]
    weight: Float[Tensor, "points"]
    pupil_distance: float

    @property
    def num_identity(self) -> int:
        """Number of identity coefficients."""
        return self.identity_basis.shape[-1]

    def points(
        self, identity: Float[Tensor, "batch identity"], expression: Float[Tensor, "batch 52"]
    ) -> Float[Tensor, "batch points 3"]:
        """Return the points of heads."""
        basis = torch.cat([self.identity_basis, self.expression_basis], dim=-1)
        coeffs = torch.cat([identity, expression], dim=-1)
        return self.mean + (coeffs @ basis.flatten(0, 1).T).reshape(coeffs.shape[0], -1, 3)


def bake(model: LinearHead, correspondence: Correspondence) -> LandmarkModel:
    """Evaluate a head model's basis once at the landmarks.

    Args:
        model: the head model; its `vertices` are probed with unit coefficients.
        correspondence: where each landmark lies on its mesh, and how the detector reports it.
    """
    num_identity, num_actions = model.num_identity, correspondence.gain.shape[0]
    coeffs = torch.eye(num_identity + num_actions)
    identity = torch.cat([torch.zeros(1, num_identity), coeffs[:, :num_identity]])
    expression = torch.cat([torch.zeros(1, num_actions), coeffs[:, num_identity:]])
    with torch.no_grad():
        points = torch.cat(
            [
                correspondence.points(model.vertices(i[None], e[None]).float().cpu())
                for i, e in zip(identity, expression, strict=True)
            ]
        )
    mean, moved = points[0], (points[1:] - points[:1]).permute(1, 2, 0)
    pupils = mean[-2:]
    pupil_distance = float((pupils[0] - pupils[1]).norm())
    return LandmarkModel(
        mean=mean + correspondence.offset * pupil_distance,
        identity_basis=moved[..., :num_identity].contiguous(),
        expression_basis=(moved[..., num_identity:] * correspondence.gain).contiguous(),
        weight=1 / correspondence.spread.square(),
        pupil_distance=pupil_distance,
    )
