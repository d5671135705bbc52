"""Evaluate: scores of every reconstruction and every clip, and whether they pass the gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from galatea.animation.video import read_frames
from galatea.cameras import view_angles
from galatea.errors import ConfigError
from galatea.faces.alignment import cut_crop
from galatea.faces.landmarks import FaceLandmarks
from galatea.faces.packs import FacePack
from galatea.images import decode_image, to_tensor
from galatea.inversion.target import face_mask
from galatea.metrics.consistency import FacePatch, view_landmark_error, view_psnr, view_spread_deg
from galatea.metrics.identity import identity_similarity
from galatea.metrics.pose_expression import angle_error_deg, expression_error, landmark_error
from galatea.metrics.quality import ms_ssim, psnr, ssim
from galatea.morphable.fitting import HeadFitter
from galatea.morphable.head import HeadModel
from stages.base import Column, Kind, ModelPart, Record, Stage
from stages.face_models import FaceModels

PORTRAIT, CLIP = "portrait", "clip"


@dataclass(frozen=True)
class EvaluateConfig(FaceModels):
    """Settings of the evaluate stage: how it measures, and the gates."""

    clip_frames: int = 8
    """Frames of a clip that are measured, evenly spread."""
    min_identity_similarity: float = 0.5
    """Accepted from here; 0.5 is the threshold of being the same person."""
    min_psnr: float = 20.0
    """Of reconstructions, in dB."""
    max_landmark_error: float = 0.08
    """Of reconstructions, in inter-pupil distances."""
    max_angle_error_deg: float = 10.0
    """Of clips: mean difference of asked and achieved yaw and pitch."""
    min_view_spread_deg: float = 10.0
    """Clips whose views differ by less than this have no figures of view consistency: nothing would contradict them."""
    max_view_landmark_error: float = 0.02
    """Of clips, in inter-pupil distances; three videos of real people have 0.007 to 0.011."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        super().__post_init__()
        if not 1 <= self.clip_frames <= 1000:
            raise ConfigError(f"evaluate.clip_frames: expected 1 to 1000, got {self.clip_frames}")
        for name, value in vars(self).items():
            if name.startswith(("min_", "max_")) and not value >= 0:
                raise ConfigError(f"evaluate.{name}: expected 0 or more, got {value}")


class EvaluateStage(Stage):
    """Measures what was made against what was asked for; a low score is a verdict, never a failure."""

    name: ClassVar[str] = "evaluate"
    id_column: ClassVar[str] = "subject_id"
    source_id_column: ClassVar[str] = "subject_id"
    requires: ClassVar[tuple[str, ...]] = (
        "subject_id",
        "portrait_id",
        "crop",
        "landmarks",
        "reconstruction",
        "clip",
        "clip_matrix",
        "asked_yaw_deg",
        "asked_pitch_deg",
        "asked_expression",
    )
    produces: ClassVar[tuple[Column, ...]] = (
        Column("subject_id", Kind.STRING, "portrait_id or clip_id"),
        Column("portrait_id", Kind.STRING, "the portrait"),
        Column("kind", Kind.STRING, "portrait (its reconstruction is judged) or clip"),
        Column("identity_similarity", Kind.FLOAT, "1 = the same picture, 0.5 = threshold of being the same person"),
        Column("psnr", Kind.FLOAT, "dB, of the generator's own picture inside the face"),
        Column("ssim", Kind.FLOAT, "structural similarity inside the face"),
        Column("ms_ssim", Kind.FLOAT, "multi-scale structural similarity inside the face"),
        Column("landmark_error", Kind.FLOAT, "median landmark distance to the photo / inter-pupil distance"),
        Column("yaw_error_deg", Kind.FLOAT, "mean difference of asked and achieved yaw"),
        Column("pitch_error_deg", Kind.FLOAT, "mean difference of asked and achieved pitch"),
        Column("expression_error", Kind.FLOAT, "mean difference of asked and achieved coefficients"),
        Column("view_landmark_error", Kind.FLOAT, "landmarks against one head for all frames / inter-pupil distance"),
        Column("view_psnr", Kind.FLOAT, "dB, of the same points of the face in different frames"),
        Column("verdict", Kind.STRING, "accepted or rejected"),
        Column("verdict_reason", Kind.STRING, "which gates were missed, or empty"),
    )
    batch_size: int = 8

    def __init__(self, config: EvaluateConfig) -> None:
        """Keep the settings; models are loaded by `setup`."""
        self.config = config
        self._device = torch.device("cpu")
        self._pack: FacePack | None = None
        self._fitter: HeadFitter | None = None
        self._patch: FacePatch | None = None

    def models(self) -> tuple[ModelPart, ...]:
        """Name the face pack's models and the head model."""
        return self.config.face_parts()

    def setup(self, device: torch.device) -> None:
        """Load the face pack and the head model."""
        self._device = device
        self._pack = self.config.open_faces(device)
        head = HeadModel.load()
        self._fitter, self._patch = HeadFitter(head), FacePatch.of(head)

    @torch.no_grad()
    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Return one row of scores per portrait or clip.

        Raises:
            InputError: a picture or clip cannot be read.
        """
        rows: list[list[Record]] = []
        for record in batch:
            is_clip = record.get("clip") is not None
            scores = self._clip_scores(record) if is_clip else self._portrait_scores(record)
            missed = "; ".join(self._missed(scores))
            rows.append(
                [
                    {
                        "subject_id": record["subject_id"],
                        "portrait_id": record["portrait_id"],
                        "kind": CLIP if is_clip else PORTRAIT,
                        **scores,
                        "verdict": "rejected" if missed else "accepted",
                        "verdict_reason": missed,
                    }
                ]
            )
        return rows

    def _models(self) -> tuple[FacePack, HeadFitter, FacePatch]:
        if self._pack is None or self._fitter is None or self._patch is None:
            raise RuntimeError("EvaluateStage.process was called before setup")
        return self._pack, self._fitter, self._patch

    def _portrait_scores(self, record: Record) -> dict[str, float | None]:
        pack, *_ = self._models()
        made = to_tensor([decode_image(record["reconstruction"])], self._device)
        size = made.shape[-1]
        photo = _resized(to_tensor([decode_image(record["crop"])], self._device), size)
        found = pack.landmarks(made).points
        asked = torch.as_tensor(np.array(record["landmarks"]), dtype=torch.float32)[None].to(found)
        face = face_mask(asked, size)
        return _scores(
            identity_similarity=identity_similarity(pack, made, photo),
            psnr=psnr(made, photo, face),
            ssim=ssim(made, photo, face),
            ms_ssim=ms_ssim(made, photo, face),
            landmark_error=landmark_error(found, asked),
        )

    def _clip_scores(self, record: Record) -> dict[str, float | None]:
        pack, fitter, _ = self._models()
        num_frames = len(record["asked_yaw_deg"])
        chosen = np.unique(np.linspace(0, num_frames - 1, self.config.clip_frames).round().astype(int))
        matrix = record["clip_matrix"]
        frames = read_frames(record["clip"], chosen.tolist())
        images = self._images([frame if matrix is None else cut_crop(frame, matrix) for frame in frames])
        landmarks = pack.landmarks(images)
        fit = fitter.fit(landmarks)
        angles = view_angles(fit.camera)

        def asked(column: str) -> Float[Tensor, "frames *rest"]:
            return torch.as_tensor(np.array(record[column])[chosen], dtype=torch.float32)

        photo = self._images([decode_image(record["crop"])], images.shape[-1])
        return _scores(
            identity_similarity=identity_similarity(pack, images, photo.expand(len(images), -1, -1, -1)).mean(),
            yaw_error_deg=angle_error_deg(angles.yaw_deg.cpu(), asked("asked_yaw_deg")),
            pitch_error_deg=angle_error_deg(angles.pitch_deg.cpu(), asked("asked_pitch_deg")),
            expression_error=expression_error(fit.expression.cpu(), asked("asked_expression").reshape(-1, 52)),
            **self._view_scores(images, landmarks),
        )

    def _view_scores(self, images: Float[Tensor, "frames 3 h w"], landmarks: FaceLandmarks) -> dict[str, Tensor]:
        """Return whether the frames show one 3D thing; nothing if they show it from one side only."""
        _, fitter, patch = self._models()
        fit = fitter.fit_track(landmarks)
        if view_spread_deg(fit.camera) < self.config.min_view_spread_deg:
            return {}
        return {
            "view_landmark_error": view_landmark_error(landmarks, fit, fitter.model_for(landmarks)),
            "view_psnr": view_psnr(images, fit, patch),
        }

    def _images(self, images: Sequence[UInt8[np.ndarray, "h w 3"]], size: int = 0) -> Float[Tensor, "batch 3 h w"]:
        tensors = to_tensor(images, self._device)
        return _resized(tensors, size) if size else tensors

    def _missed(self, scores: Mapping[str, float | None]) -> list[str]:
        """Say which gates were missed; a figure that a kind of record does not have passes."""
        config = self.config
        gates = (
            ("identity_similarity", config.min_identity_similarity, True),
            ("psnr", config.min_psnr, True),
            ("landmark_error", config.max_landmark_error, False),
            ("yaw_error_deg", config.max_angle_error_deg, False),
            ("pitch_error_deg", config.max_angle_error_deg, False),
            ("view_landmark_error", config.max_view_landmark_error, False),
        )
        missed = []
        for name, limit, is_lower_bound in gates:
            value = scores[name]
            if value is not None and not (value >= limit if is_lower_bound else value <= limit):
                missed.append(f"{name} {value:.3g}, gate {limit:g}")
        return missed


_FIGURES = tuple(column.name for column in EvaluateStage.produces if column.kind is Kind.FLOAT)


def _scores(**values: Any) -> dict[str, float | None]:
    return {name: float(values[name]) if name in values else None for name in _FIGURES}


def _resized(images: Float[Tensor, "batch channels h w"], size: int) -> Float[Tensor, "batch channels size size"]:
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
