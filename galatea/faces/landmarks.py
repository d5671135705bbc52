"""478 face landmarks of portrait crops, differentiable: MediaPipe's FaceMesh, then its iris model on both eyes.

Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs" (468 mesh points);
Ablavatski et al. 2020, "Real-time Pupil Tracking from Monocular Video" (eyelid contours, 5 points an iris). Points
are in MediaPipe's order: 0..467 mesh, 468..472 iris of the image-left eye, 473..477 of the image-right eye; an iris
is centre, then four points on its rim.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from galatea.faces.detector import FaceDetector
from galatea.faces.regions import Regions, around_points
from galatea.faces.tflite import TFLiteGraph

MESH_SIZE, EYE_SIZE = 192, 64
MESH_SCALE, EYE_SCALE = 1.5, 2.3
"""Region sides: times the longer extent of the mesh, times the distance of the eye's corners."""
EYE_LINE = (33, 263)
EYES = ((33, 133), (263, 362))
"""Outer and inner corner of the image-left and the image-right eye."""
# fmt: off
EYE_POINTS = (
    (33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173, 130, 25, 110, 24, 23, 22, 26, 112,
    243, 247,
     30, 29, 27, 28, 56, 190, 226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189, 35, 124,
     46, 53, 52, 65, 143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193),
    (263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 359, 255, 339, 254, 253, 252,
    256, 341,
     463, 467, 260, 259, 257, 258, 286, 414, 446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442,
     441, 413, 265, 353, 276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296,
     336, 285, 417),
)
"""Mesh points that the iris model sees too, in its order: contour, three halos, brow (the model's 71 eye points)."""
# fmt: on
NUM_CONTOUR = 16
"""The first of `EYE_POINTS`: the eyelid contour."""
OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
"""Outline of the lips in the mesh, in order."""
EXPECTED_FACE = (0.5, 0.55, 0.48)
"""Where a portrait crop has its face: centre x, centre y, size of the detector's box, in crop sides."""
BOX_SCALE = 1.5


@dataclass(frozen=True)
class FaceLandmarks:
    """Landmarks of a batch of crops.

    Attributes:
        points: normalised, (0, 0) upper left and (1, 1) lower right of the crop.
        depth: in crop widths, smaller is nearer to the camera, 0 at the head's middle.
        confidence: 0..1, that there is a face.
        spread: standard deviation of each point in crop sides, where the reader knows it; then the points lie on the
            head model where `reader.reader_correspondence` says.
        expression: 52 ARKit coefficients, where they were read from the picture.
    """

    points: Float[Tensor, "batch 478 2"]
    depth: Float[Tensor, "batch 468"]
    confidence: Float[Tensor, " batch"]
    spread: Float[Tensor, "batch 478"] | None = None
    expression: Float[Tensor, "batch 52"] | None = None

    def five(self) -> Float[Tensor, "batch 5 2"]:
        """Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner."""
        return five_points(self.points)


def five_points(points: Float[Tensor, "batch 478 2"]) -> Float[Tensor, "batch 5 2"]:
    """The five points of face alignment: middles of the eyelid contours, nose tip, mouth corners."""
    eyes = [points[:, list(contour[:NUM_CONTOUR])].mean(1) for contour in EYE_POINTS]
    return torch.stack([*eyes, points[:, 4], points[:, 61], points[:, 291]], 1)


class FaceLandmarker(nn.Module):
    """Finds the face in each crop, then its landmarks in two passes, then its eyes.

    Args:
        detector: where the face is and how it is turned, roughly.
        mesh: the FaceMesh graph.
        iris: the iris graph.
    """

    def __init__(self, detector: FaceDetector, mesh: TFLiteGraph, iris: TFLiteGraph) -> None:
        super().__init__()
        self.detector, self.mesh, self.iris = detector, mesh, iris

    def forward(self, crops: Float[Tensor, "batch 3 size size"], regions: Regions | None = None) -> FaceLandmarks:
        """Find the landmarks of the one face in each crop.

        Gradients flow from the points through the last pass to the crop; where to look is held fixed.

        Args:
            crops: square RGB in [-1, 1].
            regions: where the faces are, if known; otherwise the detector looks.
        """
        with torch.no_grad():
            first, _, _ = self._mesh_pass(crops, regions or self.find(crops))
            region = around_points(first, first[:, EYE_LINE[0]], first[:, EYE_LINE[1]], MESH_SCALE)
        points, depth, confidence = self._mesh_pass(crops, region)
        return FaceLandmarks(self._refine_eyes(crops, points), depth, confidence)

    @torch.no_grad()
    def confirm(
        self, crops: Float[Tensor, "batch 3 size size"], points: Float[Tensor, "batch 478 2"]
    ) -> Float[Tensor, " batch"]:
        """Return FaceMesh's opinion, 0..1, that there is a face where landmarks of another kind were found."""
        mesh = points.detach()[:, :468]
        region = around_points(mesh, mesh[:, EYE_LINE[0]], mesh[:, EYE_LINE[1]], MESH_SCALE)
        return self._mesh_pass(crops, region)[2]

    @torch.no_grad()
    def find(self, crops: Float[Tensor, "batch 3 size size"]) -> Regions:
        """Return roughly where the face of each crop is and how it is turned."""
        found, scores = self.detector.locate(crops, EXPECTED_FACE)
        is_found = (scores > self.detector.min_score / 2)[:, None]
        centre = torch.where(is_found, found[:, 0], found.new_tensor(EXPECTED_FACE[:2]))
        side = torch.where(is_found[:, 0], found[:, 1].amax(1), found.new_tensor(EXPECTED_FACE[2]))
        direction = torch.where(is_found, found[:, 3] - found[:, 2], found.new_tensor([1.0, 0.0]))
        return Regions(centre, side * BOX_SCALE, torch.atan2(direction[:, 1], direction[:, 0]))

    def _mesh_pass(self, crops: Tensor, regions: Regions) -> tuple[Tensor, Tensor, Tensor]:
        raw, score = self.mesh(regions.cut(crops, MESH_SIZE) * 0.5 + 0.5)
        mesh = raw.reshape(len(crops), 468, 3) / MESH_SIZE
        return regions.to_image(mesh[..., :2]), mesh[..., 2] * regions.side[:, None], score.reshape(-1).sigmoid()

    def _refine_eyes(self, crops: Tensor, points: Tensor) -> Float[Tensor, "batch 478 2"]:
        """Replace the points around the eyes by the iris model's and append the irises."""
        outer, inner = (points[:, [eye[end] for eye in EYES]].flatten(0, 1) for end in (0, 1))
        with torch.no_grad():
            direction = inner - outer
            is_right = torch.tensor([False, True], device=points.device).repeat(len(points))
            direction = torch.where(is_right[:, None], -direction, direction)
            regions = Regions(
                (outer + inner) / 2,
                EYE_SCALE * direction.norm(dim=1),
                torch.atan2(direction[:, 1], direction[:, 0]),
                is_right,
            )
        patches = regions.cut(crops.repeat_interleave(2, 0), EYE_SIZE) * 0.5 + 0.5
        contours, irises = self.iris(patches)
        contours = _by_face(regions.to_image(contours.reshape(-1, 71, 3)[..., :2] / EYE_SIZE))
        irises = _by_face(regions.to_image(irises.reshape(-1, 5, 3)[..., :2] / EYE_SIZE))
        index = torch.tensor(EYE_POINTS, device=points.device).flatten()
        refined = points.index_copy(1, index, contours)
        return torch.cat([refined, irises], 1)


def _by_face(points: Float[Tensor, "eyes points 2"]) -> Float[Tensor, "batch points_of_both 2"]:
    """Join the points of each face's two eyes."""
    return points.reshape(len(points) // 2, -1, 2)
