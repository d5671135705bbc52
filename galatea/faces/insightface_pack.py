"""Detection and identity by InsightFace (SCRFD and ArcFace through ONNX Runtime); the rest is the open pack's.

InsightFace's published models may be used for non-commercial research only, so nothing here fetches them: the user
gives a folder, or has them where insightface keeps its own.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from google.protobuf.message import DecodeError
from jaxtyping import Float, UInt8
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime_errors
from torch import Tensor

from galatea import weights
from galatea.errors import WeightsError
from galatea.faces.landmarks import FaceLandmarks
from galatea.faces.packs import MIN_FACE_PX, DetectedFace, FacePack
from galatea.images import to_uint8

DEFAULT_PACK = "buffalo_l"
OWN_FOLDER = Path("~/.insightface")
"""Where insightface keeps its models."""
LICENCE = "InsightFace model licence (non-commercial research only)"
_LOADING_ERRORS = (
    OSError,
    ValueError,
    RuntimeError,
    AssertionError,  # insightface's own check that there is a detector
    DecodeError,
    onnxruntime_errors.Fail,
    onnxruntime_errors.InvalidProtobuf,
    onnxruntime_errors.InvalidGraph,
    onnxruntime_errors.InvalidArgument,
    onnxruntime_errors.NoSuchFile,
)


class InsightFacePack(FacePack):
    """SCRFD finds the faces, ArcFace embeds them; landmarks and mattes are the open pack's.

    Args:
        device: where the networks run; ONNX Runtime takes the GPU when it was installed with it.
        root: folder with the pack's ONNX files, or with `models/buffalo_l/` below it; None = insightface's own.

    Raises:
        WeightsError: the models are missing, or hold no detector or no recogniser.
    """

    name = "insightface"

    def __init__(self, device: torch.device | str = "cpu", root: str | Path | None = None) -> None:
        super().__init__(device)
        self.analysis = _load(root, 0 if self.device.type == "cuda" else -1)

    @torch.no_grad()
    def _detect_one(self, image: UInt8[np.ndarray, "height width 3"]) -> list[DetectedFace]:
        boxes, points = self.analysis.det_model.detect(np.ascontiguousarray(image[..., ::-1]))
        faces = [
            DetectedFace(box[:4].astype(np.float64), float(box[4]), five.astype(np.float64))
            for box, five in zip(boxes, points, strict=True)
            if box[2] - box[0] >= MIN_FACE_PX
        ]
        return sorted(faces, key=lambda face: -face.area)

    @torch.no_grad()
    def embed(
        self, crops: Float[Tensor, "batch 3 size size"], landmarks: FaceLandmarks | None = None
    ) -> Float[Tensor, "batch dim"]:
        """ArcFace embeddings of unit length; ONNX Runtime gives no gradients.

        Args:
            crops: portrait crops in [-1, 1], one face each.
            landmarks: of the same crops, if already known.
        """
        from insightface.utils import face_align

        recogniser = self.analysis.models["recognition"]
        five = (landmarks or self.landmarks(crops)).five().cpu().numpy() * crops.shape[2]
        pictures = [cv2.cvtColor(picture, cv2.COLOR_RGB2BGR) for picture in to_uint8(crops)]
        chips = [
            face_align.norm_crop(picture, landmark=points, image_size=recogniser.input_size[0])
            for picture, points in zip(pictures, five, strict=True)
        ]
        features = torch.from_numpy(np.asarray(recogniser.get_feat(chips), dtype=np.float32))
        return torch.nn.functional.normalize(features, dim=1).to(self.device)

    def identity_similarity(
        self, first: Float[Tensor, "batch dim"], second: Float[Tensor, "batch dim"]
    ) -> Float[Tensor, " batch"]:
        """Cosine similarity, negative values cut to 0."""
        return torch.nn.functional.cosine_similarity(first, second, dim=-1).clamp(min=0)


def _load(root: str | Path | None, context: int) -> Any:
    """Open InsightFace's own pipeline, and say what to do where that fails."""
    from insightface.app import FaceAnalysis

    providers = ["CUDAExecutionProvider", "CPUExecutionProvider"] if context >= 0 else ["CPUExecutionProvider"]
    folder = _pack_folder(root)
    try:
        analysis = FaceAnalysis(name=str(folder), allowed_modules=["detection", "recognition"], providers=providers)
        analysis.prepare(ctx_id=context, det_size=(640, 640))
    except _LOADING_ERRORS as error:
        raise WeightsError(_advice(root, f"{type(error).__name__}: {error}")) from error
    if "recognition" not in analysis.models:
        raise WeightsError(_advice(root, f"{folder} holds no recognition model"))
    return analysis


def _pack_folder(root: str | Path | None) -> Path:
    place = (OWN_FOLDER if root is None else Path(root)).expanduser()
    for folder in (place, place / DEFAULT_PACK, place / "models" / DEFAULT_PACK):
        if folder.is_dir() and any(folder.glob("*.onnx")):
            return folder
    raise WeightsError(_advice(root, f"no .onnx file in {place}"))


def _advice(root: str | Path | None, reason: str) -> str:
    return (
        f"The InsightFace pack could not be opened in {OWN_FOLDER if root is None else root} ({reason}). Its models "
        f"are licensed for non-commercial research only and do not come with Galatea: obtain {DEFAULT_PACK} from "
        "InsightFace, unpack it, and give the folder (faces.root=FOLDER); or use faces.pack=open, which allows "
        "commercial use."
    )


def supplied_parts(root: str | Path | None = None) -> tuple[weights.Part, ...]:
    """Return the facts of the ONNX files in a user's folder, without loading them.

    Raises:
        WeightsError: if there are none.
    """
    files = sorted(_pack_folder(root).glob("*.onnx"))
    return tuple(_fact(file, file.stat().st_mtime_ns, file.stat().st_size) for file in files)


@functools.cache
def _fact(file: Path, _changed: int, _size: int) -> weights.Part:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    name = f"insightface_{file.stem}"
    return weights.Part(name, "of an InsightFace pack", file.parent.name, str(file), digest, LICENCE, False, True)
