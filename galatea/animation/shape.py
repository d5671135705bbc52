"""The shape of a person as a mesh: a sample of a generator or an inverted portrait, with any expression."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.eg3d.geometry import Mesh, head_mesh
from galatea.errors import ConfigError
from galatea.inversion.binding import PortraitGenerator, full_maps, mesh_of, personal_generator
from galatea.inversion.capsule import Capsule
from galatea.morphable.actions import action_vector
from galatea.morphable.head import HeadCoefficients

TRUNCATION_PSI = 0.7
"""As in the example commands of EG3D's gen_samples script (`--trunc=0.7`); identities of a head likewise."""


@dataclass(frozen=True)
class ShapeSettings:
    """How a mesh is made.

    Attributes:
        resolution: grid points along an edge.
        level: density of the surface; None: the generator's usual one (`geometry.head_mesh`).
        expression: ARKit coefficients by name; empty: a portrait's own expression, a sample at rest.
    """

    resolution: int = 192
    level: float | None = None
    expression: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        if not 8 <= self.resolution <= 1024:
            raise ConfigError(f"mesh resolution: expected 8 to 1024, got {self.resolution}")
        if self.level is not None and not self.level > 0:
            raise ConfigError(f"mesh level: expected a density above 0, got {self.level}")
        for name, value in self.expression.items():
            if not 0 <= value <= 1:
                raise ConfigError(f"mesh expression {name}: expected 0 to 1, got {value}")
        try:
            action_vector(self.expression)
        except ValueError as error:
            raise ConfigError(f"mesh expression: {error}") from error


@torch.no_grad()
def sample_mesh(generator: PortraitGenerator, seed: int, settings: ShapeSettings) -> Mesh:
    """Return the mesh of a person whom the generator draws; the same seed gives the same person.

    Raises:
        ConfigError: if an expression is asked of a generator without a head model.
        InputError: if there is no surface.
    """
    draw = torch.Generator().manual_seed(seed)
    mesh, device = mesh_of(generator), generator.w_avg.device
    # Any normal vector is a code of EG3D's; codes of the built-in generator mean something, so typical ones are used.
    typical = getattr(generator, "typical_codes", None)
    if typical is None:
        z = torch.randn(1, generator.z_dim, generator=draw).to(device)
    else:
        z = typical[torch.randint(len(typical), (1,), generator=draw).to(device)]
    camera = torch.zeros(1, generator.c_dim, device=device)
    ws = generator.mapping(z, camera, truncation_psi=1.0 if mesh is not None else TRUNCATION_PSI)
    identity = None
    if mesh is not None:
        identity = TRUNCATION_PSI * torch.randn(1, mesh.num_identity, generator=draw).to(device)
    return _mesh(generator, ws, _head(identity, None, settings), {}, settings)


@torch.no_grad()
def portrait_mesh(generator: PortraitGenerator, capsule: Capsule, settings: ShapeSettings) -> Mesh:
    """Return the mesh of an inverted portrait, with its edit.

    Raises:
        ConfigError: if an expression is asked of a generator without a head model.
        InputError: if there is no surface.
        WeightsError: if the capsule was made with another generator.
    """
    capsule.require_generator(generator.describe().sha256)
    own, device = personal_generator(generator, capsule.delta), generator.w_avg.device

    def edited(base: Tensor, offset: Tensor | None) -> Tensor:
        return (base if offset is None else base + offset)[None].to(device)

    identity = expression = None
    if mesh_of(own) is not None:
        identity = edited(capsule.identity, capsule.identity_offset)
        expression = edited(capsule.expression, capsule.expression_offset).clamp(0, 1)
    maps = full_maps(own, {name: value[None].to(device) for name, value in capsule.residuals.items()})
    ws = edited(capsule.w_plus, capsule.w_offset)
    return _mesh(own, ws, _head(identity, expression, settings), maps, settings)


def _head(
    identity: Float[Tensor, "1 k"] | None, expression: Float[Tensor, "1 52"] | None, settings: ShapeSettings
) -> HeadCoefficients | None:
    if identity is None:
        if settings.expression:
            raise ConfigError("mesh expression: this generator has no head model, so its expression cannot be set")
        return None
    if settings.expression or expression is None:
        expression = action_vector(settings.expression)[None].to(identity)
    return HeadCoefficients(identity, expression)


def _mesh(
    generator: PortraitGenerator,
    ws: Float[Tensor, "1 num_ws w_dim"],
    head: HeadCoefficients | None,
    maps: Mapping[str, Tensor],
    settings: ShapeSettings,
) -> Mesh:
    return head_mesh(generator, generator.planes(ws, head, maps), settings.resolution, settings.level)
