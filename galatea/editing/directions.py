"""Attribute edits: what changes in the latent, in the head's shape and in the expression for *older*, *smile*, ...

The built-in generator's code is semantic, so a direction needs no labelled search: the wanted field is moved, the
fields that go with it in the population are moved along (older people have other skin and greyer hair), and the mapping
turns the change into one of `w`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.errors import ConfigError
from galatea.inversion.capsule import Capsule
from galatea.morphable.actions import ACTION_INDEX

UNEDITED = "none"
_CONTROLS = ("age", "gender", "african", "asian", "caucasian")
"""Fields that are held while one of them moves, so that *older* does not also change gender or origin."""


@dataclass(frozen=True)
class AttributeEdit:
    """One edit at strength 1.

    Attributes:
        code: field of the semantic code -> change in standard deviations of a scalar field.
        along: fields that follow the changed ones as they do in the population.
        colour: field -> colour (sRGB, 0..1) that it is set to.
        phenotype: phenotype of the head model -> share of the way from its low to its high end.
        expression: ARKit coefficient -> change.
    """

    code: Mapping[str, float] = field(default_factory=dict)
    along: tuple[str, ...] = ()
    colour: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    phenotype: Mapping[str, float] = field(default_factory=dict)
    expression: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_semantic(self) -> bool:
        """Whether the edit needs a generator with a semantic code."""
        return bool(self.code or self.colour)


EDITS: Mapping[str, AttributeEdit] = {
    UNEDITED: AttributeEdit(),
    "older": AttributeEdit(
        code={"age": 1.8},
        along=("skin_texture", "hair_color", "brow_color", "skin_shine"),
        phenotype={"age": 0.7},
    ),
    "smile": AttributeEdit(
        expression={
            "mouthSmileLeft": 0.55,
            "mouthSmileRight": 0.55,
            "cheekSquintLeft": 0.4,
            "cheekSquintRight": 0.4,
            "mouthUpperUpLeft": 0.2,
            "mouthUpperUpRight": 0.2,
        }
    ),
    "fair_hair": AttributeEdit(colour={"hair_color": (0.87, 0.72, 0.45), "brow_color": (0.6, 0.48, 0.3)}),
    "fuller_face": AttributeEdit(code={"weight": 1.0}, phenotype={"weight": 0.8}),
}
"""The edits that Galatea knows by name."""


def edit_names() -> tuple[str, ...]:
    """Return the names that `apply_edit` knows."""
    return tuple(EDITS)


def apply_edit(generator: object, capsule: Capsule, name: str, strength: float = 1.0) -> Capsule:
    """Return the capsule with an edit in its `*_offset` fields; the inversion in it is not touched.

    Args:
        generator: the one that the capsule was made with.
        capsule: an inverted portrait; an edit that it carries already is replaced.
        name: one of `edit_names`.
        strength: 1 = as designed, 0 = nothing, negative = the opposite.

    Raises:
        ConfigError: if the name is unknown, or the generator has no semantic code and no head.
        WeightsError: if the capsule was made with another generator.
    """
    edit = edit_of(name)
    if name == UNEDITED:
        return replace(capsule, w_offset=None, identity_offset=None, expression_offset=None, edit=UNEDITED)
    if not isinstance(generator, AnchoredGenerator):
        raise ConfigError(f"edit {name!r}: expected a generator with a semantic code and a head, got a plain one")
    capsule.require_generator(generator.sha256)
    w_offset = strength * w_direction(generator, edit) if edit.is_semantic else None
    return replace(
        capsule,
        w_offset=None if w_offset is None else w_offset.cpu(),
        identity_offset=_identity_offset(generator, edit, strength),
        expression_offset=_expression_offset(capsule, edit, strength),
        edit=name,
    )


def edit_of(name: str) -> AttributeEdit:
    """Return an edit by name.

    Raises:
        ConfigError: if there is none.
    """
    if name not in EDITS:
        raise ConfigError(f"edit: expected one of {', '.join(EDITS)}, got {name!r}")
    return EDITS[name]


@torch.no_grad()
def w_direction(generator: AnchoredGenerator, edit: AttributeEdit) -> Float[Tensor, "num_ws w_dim"]:
    """Return the change of `w_plus` that an edit makes to the average person."""
    mean, deviation = generator.code_statistics
    changed = mean.clone()
    for name, amount in edit.code.items():
        place = _place(generator, name)
        moved = changed[place] + amount * deviation[place]
        follow = _regression(generator, name) * float((moved - changed[place])[0])
        for follower in edit.along:
            changed[_place(generator, follower)] += follow[_place(generator, follower)]
        changed[place] = moved
    for name, colour in edit.colour.items():
        changed[_place(generator, name)] = changed.new_tensor(colour)
    before, after = generator.mapping(torch.stack([mean, changed])).unbind(0)
    return after - before


def _place(generator: AnchoredGenerator, name: str) -> slice:
    if name not in generator.code_fields:
        raise ConfigError(
            f"edit: expected a code field of the generator ({', '.join(generator.code_fields)}), got {name!r}"
        )
    return generator.code_fields[name]


def _regression(generator: AnchoredGenerator, name: str) -> Float[Tensor, "z_dim"]:
    """Return how every field changes with one, among typical people, with the other controls held."""
    codes = generator.typical_codes.double()
    centred = codes - codes.mean(0)
    controls = [name, *(other for other in _CONTROLS if other != name and other in generator.code_fields)]
    inputs = torch.cat([centred[:, _place(generator, control)] for control in controls], dim=1)
    gram = inputs.T @ inputs
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    slopes: Tensor = torch.linalg.solve(gram + ridge, inputs.T @ centred)[0]
    return slopes.to(generator.typical_codes.dtype)


def _identity_offset(
    generator: AnchoredGenerator, edit: AttributeEdit, strength: float
) -> Float[Tensor, "num_identity"] | None:
    if not edit.phenotype:
        return None
    directions = [share * generator.mesh.phenotype_direction(name) for name, share in edit.phenotype.items()]
    return (strength * torch.stack(directions).sum(0)).float().cpu()


def _expression_offset(capsule: Capsule, edit: AttributeEdit, strength: float) -> Float[Tensor, "52"] | None:
    if not edit.expression:
        return None
    change = torch.zeros_like(capsule.expression)
    for name, amount in edit.expression.items():
        change[ACTION_INDEX[name]] = strength * amount
    return (capsule.expression + change).clamp(0, 1) - capsule.expression
