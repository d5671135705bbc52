"""Do the frames of a clip show one 3D thing: the same points, and the same colours of the same points, from every side.

Both figures follow multi-view geometry and need no second photo. *Points*: the landmarks of all frames are triangulated
to one head (linear triangulation, Hartley and Zisserman 2004, section 12.2) and projected back; what remains is what no
single head explains. *Colours*: points of the face are looked up in every frame, and should look the same
(photo-consistency, Seitz and Dyer 1999); this sees texture that sticks to the screen (Karras et al. 2021), which
landmarks do not. EG3D measures consistency by the identity of two views and by its own depth (Chan et al. 2022):
identity is measured next door, and a clip has no depth; cameras and expressions come from the head fit of one person.

Both only mean something where a clip shows the head from several sides (`view_spread_deg`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from galatea.cameras import project, unpack_label
from galatea.morphable.correspondence import NUM_MESH_POINTS
from galatea.morphable.face_area import face_vertices
from galatea.morphable.fitting import LEFT_IRIS, RIGHT_IRIS, HeadFit, Landmarks, observed_points
from galatea.morphable.head import HeadModel, vertex_normals
from galatea.morphable.landmark_model import LandmarkModel

COMPARED_SIZE = 128
"""Frames are compared at so many pixels a side: there 1% of the pupils' distance, what fits err by, is 0.3 pixels."""
MIN_FACING = 0.2
"""Cosine to the view below which a point's colour does not count. The face hides few of its other points (1% at 30
degrees, which costs a perfect clip 0.2 dB), so that nothing is cast."""
_DAMPING = 1e-3
"""Pull of triangulated points towards the fitted head, as a share of what the frames say: holds points that all frames
see from one side."""


@dataclass(frozen=True)
class FacePatch:
    """The skin of the face, cut out of the head model.

    Attributes:
        mean: vertices of the mean head.
        basis: their movement for a coefficient of one, identity before expression.
        faces: triangles among them.
    """

    mean: Float[Tensor, "v 3"]
    basis: Float[Tensor, "k v 3"]
    faces: Int[Tensor, "f 3"]

    @staticmethod
    def of(head: HeadModel) -> FacePatch:
        """Cut the face out of a head model on the CPU.

        Raises:
            WeightsError: if the built-in correspondence is missing or damaged.
        """
        skin = head.faces[head.part == head.part_names.index("skin")]
        index = face_vertices(head)
        place = torch.full((head.num_vertices,), -1)
        place[index] = torch.arange(len(index))
        faces = place[skin]
        basis = torch.cat([head.identity_basis[:, index], head.action_basis[:, index]])
        return FacePatch(head.mean[index], basis, faces[(faces >= 0).all(1)])

    def vertices(self, fit: HeadFit) -> Float[Tensor, "frames v 3"]:
        """Return the face of each fit in world space."""
        moved = torch.cat([fit.identity, fit.expression], dim=1) @ self.basis.flatten(1)
        return self.mean + moved.reshape(-1, *self.mean.shape)


def view_spread_deg(camera: Float[Tensor, "frames 25"]) -> Float[Tensor, ""]:
    """Return the largest angle between the directions that the frames see the head from."""
    forward = unpack_label(camera)[0][:, :3, 2]
    return torch.rad2deg(torch.arccos((forward @ forward.T).amin().clamp(-1, 1)))


def view_landmark_error(landmarks: Landmarks, fit: HeadFit, model: LandmarkModel) -> Float[Tensor, ""]:
    """Return how far landmarks are from those of one head that all frames share, in inter-pupil distances.

    The shared head is free in every point, so that an unusual face costs nothing; only its movement with expression is
    the model's. Points count as they are sure (`spread`), because those under hair are guesses in every frame.

    Args:
        landmarks: of the frames.
        fit: heads and cameras of the frames, of one identity (`HeadFitter.fit_track`).
        model: what was fitted (`HeadFitter.model_for`).
    """
    observed = observed_points(landmarks.points)
    moved = (fit.expression @ model.expression_basis.flatten(0, 1).T).reshape(len(observed), -1, 3)
    expected = model.points(fit.identity[:1], torch.zeros_like(fit.expression[:1]))[0]
    spread = _spread(landmarks, model).expand(len(observed), -1)
    head = _triangulate(observed, moved, fit.camera, expected, 1 / spread.square())
    seen, depth = project(head + moved, fit.camera)
    ruler = unpack_label(fit.camera)[1][:, 0, 0] * model.pupil_distance / depth.mean(1)
    error = (seen - observed).norm(dim=-1) / ruler[:, None]
    # Each point was fitted with three numbers: without this, clips measured at fewer frames would seem better.
    known = 2 * len(observed)
    error = error * (known / max(known - 3, 1)) ** 0.5
    weight = 1 / spread.square()
    mean: Tensor = (error * weight).sum() / weight.sum()
    return mean


def view_psnr(images: Float[Tensor, "frames 3 h w"], fit: HeadFit, patch: FacePatch) -> Float[Tensor, ""]:
    """Return how alike the frames show the same points of the face, as a peak signal-to-noise ratio in dB.

    The noise is the deviation of a point's colour from its mean over the frames that see it.

    Args:
        images: the frames, [-1, 1].
        fit: heads and cameras of the frames.
        patch: the face.
    """
    size = (COMPARED_SIZE, COMPARED_SIZE)
    small = F.interpolate(images.float().cpu(), size, mode="bilinear", align_corners=False, antialias=True)
    vertices = patch.vertices(fit)
    places, _ = project(vertices, fit.camera)
    colours = F.grid_sample(small, (places * 2 - 1)[:, :, None], align_corners=False)[..., 0].transpose(1, 2)
    eye = unpack_label(fit.camera)[0][:, :3, 3]
    to_eye = F.normalize(eye[:, None] - vertices, dim=-1)
    facing = (vertex_normals(vertices, patch.faces) * to_eye).sum(-1)
    weight = (facing - MIN_FACING).clamp_min(0) * ((places > 0) & (places < 1)).all(-1)
    weight = weight * ((weight > 0).sum(0) > 1)
    mean = (colours * weight[..., None]).sum(0) / weight.sum(0).clamp_min(1e-6)[:, None]
    error = ((colours - mean).square().mean(-1) * weight).sum() / weight.sum()
    return 10 * torch.log10(4 / error.clamp_min(1e-10))


def _spread(landmarks: Landmarks, model: LandmarkModel) -> Float[Tensor, "#frames points"]:
    """Return standard deviations of landmarks up to a common factor: by the reader's word, or the detector's usual."""
    own = getattr(landmarks, "spread", None)
    if own is None:
        return model.weight[None].rsqrt()
    own = own.detach().float().cpu()
    return torch.cat([own[:, :NUM_MESH_POINTS], own[:, [RIGHT_IRIS, LEFT_IRIS]]], dim=1).clamp_min(1e-4)


def _triangulate(
    observed: Float[Tensor, "frames points 2"],
    moved: Float[Tensor, "frames points 3"],
    camera: Float[Tensor, "frames 25"],
    expected: Float[Tensor, "points 3"],
    weight: Float[Tensor, "frames points"],
) -> Float[Tensor, "points 3"]:
    """Return the points that, moved in each frame, come nearest to what the frames show (weighted linear solution)."""
    cam2world, intrinsics = unpack_label(camera)
    rotation, eye = cam2world[:, :3, :3].transpose(1, 2), cam2world[:, :3, 3]
    rays = observed - intrinsics[:, None, :2, 2]
    rays = rays / torch.stack([intrinsics[:, 0, 0], intrinsics[:, 1, 1]], dim=-1)[:, None]
    # x / z = ray, so (first rows - ray * third row) (X + moved - eye) = 0.
    rows = rotation[:, None, :2] - rays[..., None] * rotation[:, None, 2:]
    away = -(rows @ (expected + moved - eye[:, None])[..., None])
    weighted = rows * weight[..., None, None]
    normal = (weighted.transpose(2, 3) @ rows).sum(0)
    right = (weighted.transpose(2, 3) @ away).sum(0)
    damping = _DAMPING * normal.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(3)
    points: Tensor = expected + torch.linalg.solve(normal + damping, right)[..., 0]
    return points
