"""The geometry of an expressed head with everything on it: one triangle mesh with materials for the ray caster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.correspondence import Correspondence
from galatea.morphable.head import HeadModel, vertex_normals
from training.heads import shading
from training.heads.assets import Assets
from training.heads.beards import BeardShells, beard_regions, beard_shells
from training.heads.eye_map import eye_uv
from training.heads.people import HeadSample, Person
from training.heads.wear import FacePlaces, Piece, glasses_pieces, occluder_pieces

_MATERIAL_OF_PART = {"skin": shading.SKIN, "eye": shading.EYE, "mouth": shading.MOUTH, "socket": shading.SOCKET}
FIRST_UPPER_TOOTH = 15060
"""Base mesh helper vertices below this number (of those of the teeth) belong to the lower jaw."""
GUM_RETREAT, GUM_RISE = 0.08, 0.06
"""Units that the lower gum's end is moved back and up: a wide open jaw would push it through the chin."""
SUNK_MOLARS = 0.04
"""Units by which molars sink into their gums: they do not quite follow the jaw, and would show in a mouth's corners."""
BROW_LIFT = 0.002
"""Units that brow cards are lifted off the skin, which would otherwise pierce them."""
BRIDGE = 6
"""FaceMesh's landmark on the bridge of the nose."""


@dataclass(frozen=True)
class HeadGeometry:
    """A mesh of all that is seen; the first vertices are the head model's.

    Attributes:
        vertices, normals: world space.
        triangles, uv, material: of faces; uv per corner, v upwards.
        vertex_material: material of each vertex's part.
        beard: how densely a beard covers vertices; falls below 0 towards the tips of its shells.
        light_from: vertices whose light is copied, (from, to).
    """

    vertices: Float[np.ndarray, "v 3"]
    normals: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "f 3 2"]
    material: Int[np.ndarray, "f"]
    vertex_material: Int[np.ndarray, "v"]
    beard: Float[np.ndarray, "v"]
    light_from: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]


@dataclass(frozen=True)
class _Body:
    """A part of the mesh before it is joined: its corners count from its own first vertex."""

    vertices: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "f 3"]
    uv: Float[np.ndarray, "f 3 2"]
    material: int


class GeometryBuilder:
    """Builds the geometry of head samples."""

    def __init__(self, model: HeadModel, assets: Assets, correspondence: Correspondence) -> None:
        self.model, self.assets, self.correspondence = model, assets, correspondence
        self._base = self._head_topology()
        self._vertex_material = self._head_vertex_material()
        self._is_lower_tooth = model.base_index.numpy()[assets.teeth.refs[:, 0]] < FIRST_UPPER_TOOTH
        self._gum_depth = self._lower_gum_depth()
        self._back = ((0.18 - assets.teeth.fit(model.mean.numpy())[:, 2]) / 0.06).clip(0, 1)
        self._beards = beard_regions(model, correspondence)

    def build(self, sample: HeadSample) -> HeadGeometry:
        """Pose the head and hang everything on it."""
        person = sample.person
        identity, expression = (torch.from_numpy(a)[None] for a in (person.identity, sample.expression))
        head = self.model.vertices(identity, expression)[0].numpy()
        bodies = [*self._proxies(person, head), *self._worn(sample)]
        shells, beard = self._shells(sample)
        if shells is not None:
            bodies.append(_Body(head[shells.source], shells.triangles, _no_uv(shells.triangles), shading.BEARD))
        faces, uv, material, owners = self._joined(bodies)
        vertices = np.concatenate([head, *(body.vertices for body in bodies)]).astype(np.float32)
        self._seat_mouth(sample, vertices, owners)
        normals = vertex_normals(torch.from_numpy(vertices)[None], torch.from_numpy(faces))[0].numpy()
        weight = np.zeros(len(vertices), dtype=np.float32)
        weight[: len(beard)] = beard
        self._displace(sample, vertices, normals, owners, weight, shells)
        light_from = (np.zeros(0, np.int64),) * 2 if shells is None else (shells.source, owners == shading.BEARD)
        return HeadGeometry(vertices, normals, faces, uv, material, owners, weight, light_from)

    def _seat_mouth(self, sample: HeadSample, vertices: np.ndarray, owners: np.ndarray) -> None:
        """Move teeth and tongue to where this person has them, in place; a tongue put out leaves its seat."""
        seat = sample.person.mouth
        teeth, tongue = owners == shading.TEETH, owners == shading.TONGUE
        low = seat.lower_teeth + SUNK_MOLARS * self._back * (1 - self._gum_depth)
        high = seat.upper_teeth - SUNK_MOLARS / 2 * self._back
        vertices[teeth, 1] -= np.where(self._is_lower_tooth, low, high)
        vertices[teeth, 1:] += np.array([GUM_RISE, -GUM_RETREAT]) * self._gum_depth[:, None]
        vertices[tongue, 1] -= seat.tongue * (1 - sample.expression[ACTION_INDEX["tongueOut"]])

    def _joined(self, bodies: list[_Body]) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return triangles, uv and materials of the head and all bodies, and the materials of their vertices."""
        base_triangles, base_uv, base_material = self._base
        triangles, owners, start = [base_triangles], [self._vertex_material], self.model.num_vertices
        for body in bodies:
            triangles.append(body.triangles + start)
            owners.append(np.full(len(body.vertices), body.material))
            start += len(body.vertices)
        material = [base_material, *(np.full(len(body.triangles), body.material) for body in bodies)]
        uv = [base_uv, *(body.uv for body in bodies)]
        return np.concatenate(triangles), np.concatenate(uv), np.concatenate(material), np.concatenate(owners)

    def _displace(
        self,
        sample: HeadSample,
        vertices: np.ndarray,
        normals: np.ndarray,
        owners: np.ndarray,
        weight: np.ndarray,
        shells: BeardShells | None,
    ) -> None:
        """Lift clothing, brows and the shells of a beard off the skin, in place."""
        cover = _cloth_weight(self.model.mean.numpy(), sample.person)
        vertices[: len(cover)] += 0.012 * cover[:, None] * normals[: len(cover)]
        is_brow = owners == shading.BROW
        vertices[is_brow] += BROW_LIFT * normals[is_brow]
        beard = sample.extras.beard
        if shells is not None and beard is not None:
            is_shell = owners == shading.BEARD
            hang = shells.height[:, None] * beard.length
            grown = weight[shells.source]
            vertices[is_shell] += (
                hang * grown[:, None] * (normals[shells.source] + np.array([0, -0.5, 0], dtype=np.float32))
            )
            normals[is_shell] = normals[shells.source]
            weight[is_shell] = grown - 0.6 * shells.height + 0.05

    def _shells(self, sample: HeadSample) -> tuple[BeardShells | None, Float[np.ndarray, "v"]]:
        """Return the shells of a beard that has length, and its density on the skin."""
        beard = sample.extras.beard
        if beard is None:
            return None, np.zeros(self.model.num_vertices, dtype=np.float32)
        weight = self._beards.weight(beard)
        if beard.length == 0:
            return None, weight
        triangles, _, material = self._base
        return beard_shells(triangles[material == shading.SKIN], weight), weight

    def _proxies(self, person: Person, head: np.ndarray) -> list[_Body]:
        assets = self.assets
        parts = [(assets.teeth, shading.TEETH), (assets.tongue, shading.TONGUE)]
        parts += [(assets.brows[person.brow], shading.BROW), (assets.lashes[person.lash], shading.LASH)]
        if person.hair:
            parts.append((assets.hairs[person.hair], shading.HAIR))
        return [_Body(proxy.fit(head), proxy.triangles, proxy.uv, material) for proxy, material in parts]

    def _worn(self, sample: HeadSample) -> list[_Body]:
        extras = sample.extras
        if extras.glasses is None and extras.occluder is None:
            return []
        places = self._places(sample.person)
        pieces: list[Piece] = []
        if extras.glasses is not None:
            pieces += glasses_pieces(extras.glasses, places)
        if extras.occluder is not None:
            pieces += occluder_pieces(extras.occluder, places)
        return [_Body(piece.vertices, piece.triangles, _no_uv(piece.triangles), piece.material) for piece in pieces]

    def _places(self, person: Person) -> FacePlaces:
        """Measure the face at rest: things worn do not move with expressions."""
        model = self.model
        rest = model.vertices(torch.from_numpy(person.identity)[None], torch.zeros(1, len(model.action_names)))
        points = self.correspondence.points(rest)[0].numpy()
        eyes = model.eye_centres(rest)[0].numpy()
        skin = rest[0].numpy()[self._vertex_material == shading.SKIN]
        level = np.abs(skin[:, 1] - eyes[0, 1])
        around = skin[(level < 0.045) & (np.abs(np.abs(skin[:, 0]) - eyes[0, 0]) < 0.05)]
        temples = skin[(level < 0.03) & (skin[:, 2] > 0.07) & (skin[:, 2] < 0.13)]
        return FacePlaces(
            eyes=eyes,
            bridge=points[BRIDGE],
            mouth=(points[13] + points[14]) / 2,
            front=float(around[:, 2].max()),
            half_width=float(np.abs(temples[:, 0]).max()),
        )

    def _head_topology(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return triangles, texture coordinates and materials of the head without teeth and tongue."""
        model = self.model
        part = np.array(model.part_names)[model.part.numpy()]
        chosen = np.isin(part, list(_MATERIAL_OF_PART))
        uv = np.where((part == "eye")[:, None, None], eye_uv(model), model.source_uv.numpy())
        material = np.array([_MATERIAL_OF_PART[name] for name in part[chosen]])
        return model.faces.numpy()[chosen], uv[chosen].astype(np.float32), material

    def _head_vertex_material(self) -> Int[np.ndarray, "v"]:
        triangles, _, material = self._base
        owners = np.full(self.model.num_vertices, shading.SKIN)
        for part in (shading.EYE, shading.MOUTH, shading.SOCKET):
            owners[np.unique(triangles[material == part])] = part
        return owners

    def _lower_gum_depth(self) -> Float[np.ndarray, "n"]:
        """Return 0 for the upper teeth, 0..1 from the edge of the lower teeth down to the end of the gum."""
        teeth = self.assets.teeth
        height = teeth.fit(self.model.mean.numpy())[:, 1]
        is_lower = self._is_lower_tooth
        span = height[is_lower].max() - height[is_lower].min()
        return np.asarray(is_lower * ((height[is_lower].max() - height) / span).clip(0, 1) ** 2)


def _no_uv(triangles: Int[np.ndarray, "f 3"]) -> Float[np.ndarray, "f 3 2"]:
    return np.zeros((len(triangles), 3, 2), dtype=np.float32)


def _cloth_weight(rest: Float[np.ndarray, "v 3"], person: Person) -> Float[np.ndarray, "v"]:
    """Return how much clothing covers vertices (the same edge that the ray caster draws)."""
    edge = person.cloth_height - person.cloth_tilt * (rest[:, 2] - 0.05)
    return np.asarray(np.clip((edge - rest[:, 1]) * 60.0 + 0.5, 0.0, 1.0))
