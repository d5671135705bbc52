"""Where FaceMesh's 468 landmarks and the two pupils lie on the head model, and how faithfully FaceMesh reports them.

The numbers are Galatea's own: `python -m training.correspondence` renders heads whose shape, expression and camera are
known, runs FaceMesh on the pictures and casts the landmarks back onto the mesh.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from galatea.errors import WeightsError

NUM_MESH_POINTS = 468
NUM_POINTS = NUM_MESH_POINTS + 2
"""FaceMesh's points, then the pupils: image-left eye (the person's right) first."""
RESOURCE = "facemesh_correspondence.safetensors"


@dataclass(frozen=True)
class Correspondence:
    """Landmarks on the head model's mesh.

    Attributes:
        vertex: three vertices of the head model for each point.
        barycentric: their weights.
        offset: what is to be added in head space, in inter-pupil distances: FaceMesh's points are not on the surface
            (it exaggerates depth, which shows as over-rotation), this is where they are.
        spread: standard deviation of the detected point around the modelled one, in inter-pupil distances.
        gain: share of each ARKit action's true movement that the detector reports.
    """

    vertex: Int[Tensor, "points 3"]
    barycentric: Float[Tensor, "points 3"]
    offset: Float[Tensor, "points 3"]
    spread: Float[Tensor, "points"]
    gain: Float[Tensor, "52"]

    def points(self, vertices: Float[Tensor, "batch vertices 3"]) -> Float[Tensor, "batch points 3"]:
        """Return the surface points (without `offset`) of meshes."""
        return (vertices[:, self.vertex] * self.barycentric[..., None]).sum(2)


def load_correspondence() -> Correspondence:
    """Read the built-in correspondence.

    Raises:
        WeightsError: if the package data is missing or damaged.
    """
    resource = files("galatea.data") / RESOURCE
    try:
        tensors = load(resource.read_bytes())
        return Correspondence(
            tensors["vertex"].long(), tensors["barycentric"], tensors["offset"], tensors["spread"], tensors["gain"]
        )
    except (OSError, ModuleNotFoundError, SafetensorError, KeyError) as error:
        raise WeightsError(
            f"landmark correspondence: expected package data galatea/data/{RESOURCE}, got {error!r}; reinstall"
        ) from error
