"""Face models as packs: one object that detects, finds landmarks, cuts out and recognises faces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from galatea import weights
from galatea.errors import ConfigError
from galatea.faces import identity
from galatea.faces.detector import Detection, FaceDetector
from galatea.faces.landmarks import FaceLandmarker, FaceLandmarks
from galatea.faces.reader import FaceReader
from galatea.faces.reader_data import RESOURCE
from galatea.faces.segmentation import PersonMatte
from galatea.faces.tflite import TFLiteGraph
from galatea.images import to_tensor

PACKS = ("open", "insightface")
IDENTITY_WEIGHTS = "dlib_face_recognition"
OPEN_WEIGHTS = ("blazeface_full_range", "facemesh", "iris", "selfie_segmentation", IDENTITY_WEIGHTS)
READER_WEIGHTS = RESOURCE.removesuffix(".safetensors")
"""The name of Galatea's own reader among the weights."""
MIN_FACE_PX = 24.0
"""Smaller detections are dropped: neither landmarks nor an inversion can be had from them."""
MIN_CONFIDENCE = 0.5
"""FaceMesh's own opinion that it looks at a face; it removes the detector's false finds."""
_PATCH_SIZE, _PATCH_SCALE = 256, 2.5


@dataclass(frozen=True)
class DetectedFace:
    """One face of a photo, in continuous pixels ((0, 0) = upper left corner of the upper left pixel).

    Attributes:
        box: x0, y0, x1, y1.
        score: the detector's, 0..1.
        landmarks_5: image-left eye, image-right eye, nose tip, image-left and image-right mouth corner.
    """

    box: Float[np.ndarray, " 4"]
    score: float
    landmarks_5: Float[np.ndarray, "5 2"]

    @property
    def area(self) -> float:
        """Box area in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


class FacePack:
    """The open pack: MediaPipe's and dlib's networks and Galatea's own reader; other packs replace parts of it.

    MediaPipe finds faces and confirms them; what portrait crops show is read by Galatea's reader.

    Args:
        device: where the networks run.
        use_reader: False leaves landmarks to MediaPipe's FaceMesh, which knows neither spread nor expression.

    Raises:
        WeightsError: the weights are not fetched.
    """

    name = "open"

    def __init__(self, device: torch.device | str = "cpu", use_reader: bool = True) -> None:
        self.device = torch.device(device)
        self.reader = FaceReader.load(self.device) if use_reader else None
        self.detector = FaceDetector(_graph("blazeface_full_range"))
        self.landmarker = FaceLandmarker(self.detector, _graph("facemesh"), _graph("iris")).to(self.device).eval()
        if self.reader is not None:
            self.reader.finder = self.landmarker.find
        self.matte = PersonMatte(_graph("selfie_segmentation")).to(self.device).eval()
        self.identity_net = identity.IdentityNet.load(weights.path(IDENTITY_WEIGHTS)).to(self.device).eval()

    def detect(self, images: Sequence[UInt8[np.ndarray, "height width 3"]]) -> list[list[DetectedFace]]:
        """Find all faces of each photo, largest first; a photo without a face has an empty list in its place."""
        return [self._detect_one(image) for image in images]

    @torch.no_grad()
    def _detect_one(self, image: UInt8[np.ndarray, "height width 3"]) -> list[DetectedFace]:
        found = [face for face in self.detector.detect(image) if face.box[2] - face.box[0] >= MIN_FACE_PX]
        if not found:
            return []
        patches, matrices = zip(*(_patch(image, face) for face in found), strict=True)
        landmarks = self.landmarker(to_tensor(patches, self.device))
        five = landmarks.five().cpu().numpy() * _PATCH_SIZE
        faces = []
        for face, points, matrix, confidence in zip(found, five, matrices, landmarks.confidence.tolist(), strict=True):
            if confidence >= MIN_CONFIDENCE:
                back = cv2.invertAffineTransform(matrix)
                faces.append(DetectedFace(face.box, face.score, points @ back[:, :2].T + back[:, 2]))
        return sorted(faces, key=lambda face: -face.area)

    def landmarks(self, crops: Float[Tensor, "batch 3 size size"]) -> FaceLandmarks:
        """Landmarks of portrait crops in [-1, 1]; differentiable with respect to the crops.

        Where the reader reads them, FaceMesh still says whether there is a face.
        """
        if self.reader is None:
            found: FaceLandmarks = self.landmarker(crops)
            return found
        read = self.reader.landmarks(crops)
        return replace(read, confidence=self.landmarker.confirm(crops, read.points))

    def segment(self, crops: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch 1 size size"]:
        """How much of each pixel of portrait crops in [-1, 1] is the person, 0..1."""
        matte: Tensor = self.matte(crops)
        return matte

    def embed(
        self, crops: Float[Tensor, "batch 3 size size"], landmarks: FaceLandmarks | None = None
    ) -> Float[Tensor, "batch dim"]:
        """Identity embeddings of portrait crops in [-1, 1].

        Args:
            crops: one face each.
            landmarks: of the same crops, if already known.

        Returns:
            Open pack: 128 numbers, Euclidean distance below 0.6 = same person; differentiable in the crops.
        """
        points = landmarks.points if landmarks is not None else self.landmarker(crops).points
        embedding: Tensor = self.identity_net(identity.face_chips(crops, points))
        return embedding

    def identity_similarity(
        self, first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, " batch"]:
        """Similarity of embeddings: 1 = the same picture, 0.5 = on the threshold of being the same person."""
        return identity.identity_similarity(first, second)


def _graph(name: str) -> TFLiteGraph:
    return TFLiteGraph.load(weights.path(name))


def _patch(
    image: UInt8[np.ndarray, "height width 3"], face: Detection
) -> tuple[UInt8[np.ndarray, "size size 3"], Float[np.ndarray, "2 3"]]:
    """Cut a square around a detection at network scale; returns it with the matrix photo px -> patch px."""
    centre = (face.box[:2] + face.box[2:]) / 2
    side = float((face.box[2:] - face.box[:2]).max()) * _PATCH_SCALE
    low = np.floor(centre - side / 2).astype(int)
    whole = int(np.ceil(side)) + 1
    height, width = image.shape[:2]
    rows = np.clip(np.arange(low[1], low[1] + whole), 0, height - 1)
    columns = np.clip(np.arange(low[0], low[0] + whole), 0, width - 1)
    window = image[rows[:, None], columns[None, :]]
    scale = _PATCH_SIZE / whole
    mode = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    matrix = np.array([[scale, 0.0, -scale * low[0]], [0.0, scale, -scale * low[1]]])
    return cv2.resize(window, (_PATCH_SIZE, _PATCH_SIZE), interpolation=mode), matrix


def open_pack(name: str = "open", device: torch.device | str = "cpu", root: str | Path | None = None) -> FacePack:
    """Open a face model pack.

    Args:
        name: "open", or "insightface" for detection and identity by InsightFace (non-commercial research only).
        device: where the networks run.
        root: for "insightface", the folder with the pack's ONNX files; without it, insightface's own.

    Raises:
        ConfigError: unknown name.
        WeightsError: its weights are missing.
    """
    if name == "open":
        return FacePack(device)
    if name == "insightface":
        from galatea.faces.insightface_pack import InsightFacePack  # ONNX Runtime is loaded only where asked for.

        return InsightFacePack(device, root)
    raise ConfigError(f"faces.pack: unknown face pack {name!r}; expected one of {', '.join(PACKS)}.")
