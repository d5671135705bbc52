"""Align: every face of a photo becomes a portrait with crop, matte, landmarks, head model and camera."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from galatea.cameras import view_angles
from galatea.errors import ConfigError, NoFaceError
from galatea.faces.alignment import PortraitCrop, portrait_crop
from galatea.faces.packs import DetectedFace, FacePack
from galatea.images import decode_image, encode_png, encode_webp, to_tensor
from galatea.morphable.baking import NUM_IDENTITY
from galatea.morphable.fitting import HeadFit, HeadFitter
from galatea.morphable.head import HeadModel
from stages.base import Column, Kind, ModelPart, Record, Stage
from stages.face_models import FaceModels

SHARPNESS_SIZE = 256
"""Sharpness is measured at this crop size, so that it can be compared between photos."""


@dataclass(frozen=True)
class AlignConfig(FaceModels):
    """Settings of the align stage."""

    min_face_px: float = 40.0
    """Faces whose box is smaller are listed as not usable."""
    max_faces: int = 64
    """Of a crowd, only the largest are taken."""
    max_pixels: int = 100_000_000
    """A photo with more pixels is refused before it is decoded."""
    face_batch: int = field(default=16, metadata={"affects_rows": False})
    """Faces that go through the networks at once."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        super().__post_init__()
        if not 8 <= self.min_face_px <= 4096:
            raise ConfigError(f"align.min_face_px: expected 8 to 4096 pixels, got {self.min_face_px}")
        for name in ("max_faces", "max_pixels", "face_batch"):
            if getattr(self, name) < 1:
                raise ConfigError(f"align.{name}: expected 1 or more, got {getattr(self, name)}")


@dataclass(frozen=True)
class _Face:
    """One face between detection and its row."""

    detected: DetectedFace
    crop: PortraitCrop

    @property
    def size_px(self) -> float:
        x0, y0, x1, y1 = (float(value) for value in self.detected.box)
        return max(x1 - x0, y1 - y0)


class AlignStage(Stage):
    """Finds faces and fits the head model; a bad face is listed as not usable and never loses the others."""

    name: ClassVar[str] = "align"
    id_column: ClassVar[str] = "portrait_id"
    source_id_column: ClassVar[str] = "photo_id"
    requires: ClassVar[tuple[str, ...]] = ("photo_id", "photo", "uri")
    produces: ClassVar[tuple[Column, ...]] = (
        Column("portrait_id", Kind.STRING, "photo_id and the number of the face in it"),
        Column("photo_id", Kind.STRING, "the photo"),
        Column("uri", Kind.STRING, "where the photo was read"),
        Column("face_index", Kind.INT, "number of the face, the largest is 0"),
        Column("num_faces", Kind.INT, "faces found in the photo"),
        Column("box", Kind.TENSOR, "face box x0, y0, x1, y1 in photo pixels", (4,)),
        Column("score", Kind.FLOAT, "the detector's confidence, 0 to 1"),
        Column("landmarks_5", Kind.TENSOR, "eyes, nose tip, mouth corners in photo pixels", (5, 2)),
        Column("landmarks", Kind.TENSOR, "468 mesh points and irises, normalised in the crop", (478, 2)),
        Column("crop_matrix", Kind.TENSOR, "photo pixels to crop pixels", (2, 3)),
        Column("crop", Kind.BYTES, "portrait crop, 512 x 512 lossless WebP"),
        Column("matte", Kind.BYTES, "person matte of the crop, greyscale PNG"),
        Column("camera", Kind.TENSOR, "EG3D camera label", (25,)),
        Column("identity_coeffs", Kind.TENSOR, "head model identity, standard deviations", (NUM_IDENTITY,)),
        Column("expression_coeffs", Kind.TENSOR, "52 ARKit coefficients, 0 to 1", (52,)),
        Column("yaw_deg", Kind.FLOAT, "camera yaw; > 0: the nose points to the image's left"),
        Column("pitch_deg", Kind.FLOAT, "camera pitch; > 0: seen from above"),
        Column("roll_deg", Kind.FLOAT, "camera roll"),
        Column("fit_residual", Kind.FLOAT, "median landmark error of the fit / inter-pupil distance"),
        Column("sharpness", Kind.FLOAT, "standard deviation of the crop's Laplacian at 256 pixels"),
        Column("face_size_px", Kind.FLOAT, "longer side of the box in photo pixels"),
        Column("is_usable", Kind.BOOL, "whether the portrait can be inverted"),
        Column("usable_reason", Kind.STRING, "why not, or empty"),
    )
    batch_size: int = 4

    def __init__(self, config: AlignConfig) -> None:
        """Keep the settings; models are loaded by `setup`."""
        self.config = config
        self._device = torch.device("cpu")
        self._pack: FacePack | None = None
        self._fitter: HeadFitter | None = None

    def models(self) -> tuple[ModelPart, ...]:
        """Name the face pack's models and the head model."""
        return self.config.face_parts()

    def setup(self, device: torch.device) -> None:
        """Load the face pack and the head model."""
        self._device = device
        self._pack = self.config.open_faces(device)
        self._fitter = HeadFitter(HeadModel.load())

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Return a row for every face of every photo.

        Raises:
            InputError: the bytes are no photo.
            NoFaceError: a photo shows no face.
        """
        pack, _ = self._models()
        images = [decode_image(record["photo"], self.config.max_pixels) for record in batch]
        found = pack.detect(images)
        for record, detected in zip(batch, found, strict=True):
            if not detected:
                raise NoFaceError(
                    f"photo {record['photo_id']}: no face found; expected at least one of 24 pixels or more"
                )
        rows: list[list[Record]] = []
        for record, image, detected in zip(batch, images, found, strict=True):
            faces = [_Face(face, portrait_crop(image, face.landmarks_5)) for face in detected[: self.config.max_faces]]
            base = {"photo_id": record["photo_id"], "uri": record["uri"], "num_faces": len(detected)}
            portraits = [
                row
                for start in range(0, len(faces), self.config.face_batch)
                for row in self._portraits(faces[start : start + self.config.face_batch])
            ]
            rows.append([{**base, **_numbered(record, index), **row} for index, row in enumerate(portraits)])
        return rows

    def _models(self) -> tuple[FacePack, HeadFitter]:
        if self._pack is None or self._fitter is None:
            raise RuntimeError("AlignStage.process was called before setup")
        return self._pack, self._fitter

    def _portraits(self, faces: Sequence[_Face]) -> list[dict[str, Any]]:
        pack, fitter = self._models()
        crops = to_tensor([face.crop.image for face in faces], self._device)
        with torch.no_grad():
            landmarks = pack.landmarks(crops)
            mattes = (pack.segment(crops)[:, 0].clamp(0, 1) * 255).round().byte().cpu().numpy()
        fit = fitter.fit(landmarks)
        points, confidence = landmarks.points.cpu().numpy(), landmarks.confidence.cpu()
        return [
            {
                **_measured(face, mattes[index]),
                **_fitted(fit, index),
                "landmarks": points[index].astype(np.float32),
                **self._verdict(face, float(confidence[index]), fit, index),
            }
            for index, face in enumerate(faces)
        ]

    def _verdict(self, face: _Face, confidence: float, fit: HeadFit, index: int) -> dict[str, Any]:
        reason = ""
        if face.size_px < self.config.min_face_px:
            reason = f"face of {face.size_px:.0f} pixels, at least {self.config.min_face_px:.0f} are needed"
        elif confidence < 0.5:
            reason = f"landmarks not trusted (confidence {confidence:.2f}, at least 0.5 is needed)"
        elif not bool(fit.is_converged[index]):
            reason = f"the head model does not fit (error {float(fit.residual[index]):.1%} of the inter-pupil distance)"
        return {"is_usable": not reason, "usable_reason": reason}


def _numbered(record: Record, index: int) -> dict[str, Any]:
    return {"portrait_id": f"{record['photo_id']}_{index}", "face_index": index}


def _measured(face: _Face, matte: UInt8[np.ndarray, "height width"]) -> dict[str, Any]:
    return {
        "box": np.asarray(face.detected.box, dtype=np.float32),
        "score": float(face.detected.score),
        "landmarks_5": np.asarray(face.detected.landmarks_5, dtype=np.float32),
        "crop_matrix": np.asarray(face.crop.matrix, dtype=np.float32),
        "crop": encode_webp(face.crop.image),
        "matte": encode_png(matte),
        "sharpness": sharpness(face.crop.image),
        "face_size_px": face.size_px,
    }


def _fitted(fit: HeadFit, index: int) -> dict[str, Any]:
    angles = view_angles(fit.camera[index : index + 1])

    def array(values: Tensor) -> Float[np.ndarray, "n"]:
        return values[index].numpy().astype(np.float32)

    return {
        "camera": array(fit.camera),
        "identity_coeffs": array(fit.identity),
        "expression_coeffs": array(fit.expression),
        "yaw_deg": float(angles.yaw_deg),
        "pitch_deg": float(angles.pitch_deg),
        "roll_deg": float(angles.roll_deg),
        "fit_residual": float(fit.residual[index]),
    }


def sharpness(crop: UInt8[np.ndarray, "size size 3"]) -> float:
    """Return the standard deviation of the Laplacian (grey levels) over the face, the middle of a crop."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (SHARPNESS_SIZE, SHARPNESS_SIZE), interpolation=cv2.INTER_AREA)
    quarter = SHARPNESS_SIZE // 4
    face = small[quarter : 3 * quarter, quarter : 3 * quarter].astype(np.float32)
    return float(cv2.Laplacian(face, cv2.CV_32F).std())
