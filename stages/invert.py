"""Invert: a portrait becomes a capsule: latent, residual maps or weight changes, camera and head coefficients."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.animation.composite import clean_background, person_matte
from galatea.animation.contact_sheet import contact_sheet
from galatea.animation.rendering import PortraitAnimator, RenderSettings
from galatea.eg3d.checkpoint import load_generator
from galatea.errors import ConfigError, InputError
from galatea.faces.packs import FacePack
from galatea.images import decode_grey, decode_image, encode_webp, to_tensor, to_uint8
from galatea.inversion.binding import PortraitGenerator, mesh_of
from galatea.inversion.inverting import GeneratorIdentity, Inversion, InversionConfig, invert
from galatea.inversion.lifting import LiftingConfig
from galatea.inversion.objective import LossWeights
from galatea.inversion.pivotal import TuningConfig
from galatea.inversion.projector import LatentStatistics, ProjectionConfig, latent_statistics
from galatea.inversion.target import InversionTarget, face_mask, pixel_weight
from galatea.metrics.identity import identity_similarity
from galatea.metrics.pose_expression import landmark_error
from galatea.morphable.head import HeadCoefficients
from stages.base import Column, Kind, ModelPart, Record, Stage
from stages.face_models import FaceModels
from stages.generator_provenance import generator_part
from stages.ranges import check_ranges

TURNED_YAWS_DEG = (-30.0, -15.0, 0.0, 15.0, 30.0)
"""Views of the strip that shows whether the portrait has depth."""
TURNED_SIZE = 192


_RANGES = {
    "batch_size": (1, 1024),
    "num_candidates": (1, 100_000),
    "projection_steps": (0, 100_000),
    "projection_lr": (0, 10),
    "projection_resolution": (8, 1024),
    "tuning_steps": (0, 100_000),
    "tuning_resolution": (0, 1024),
    "map_lr": (0, 10),
    "hair_lr": (0, 10),
    "delta_lr": (0, 10),
    "lift_steps": (0, 1000),
    "lift_size": (4, 4096),
    "side_weight": (0, 1000),
}


@dataclass(frozen=True)
class InvertConfig(FaceModels):
    """Settings of the invert stage."""

    generator: str = "builtin"
    """Name or path of the generator checkpoint."""
    batch_size: int = field(default=1, metadata={"affects_rows": False})
    """Portraits inverted together; more than one only for anchored generators."""
    num_candidates: int = ProjectionConfig.num_candidates
    """Typical latents that are tried as a start."""
    projection_steps: int = ProjectionConfig.num_steps
    """Steps of the latent projection."""
    projection_lr: float = ProjectionConfig.lr
    """Its learning rate, in standard deviations of the latent."""
    projection_resolution: int = ProjectionConfig.resolution
    """Size at which the projection compares images."""
    tuning_steps: int = TuningConfig.num_steps
    """Steps of pivotal tuning."""
    tuning_resolution: int = TuningConfig.resolution or 0
    """Size of the volume rendering in tuning; 0 = the generator's own."""
    map_lr: float = TuningConfig.map_lr
    """Learning rate of residual maps of the texture."""
    hair_lr: float = TuningConfig.hair_lr
    """The same for maps of hair and clothes."""
    delta_lr: float = TuningConfig.delta_lr
    """Learning rate of weight changes, for generators without residual maps."""
    lift_steps: int = LiftingConfig.num_steps
    """Corrections that lift the photo's detail into the texture; 0 leaves it as soft as tuning does."""
    lift_size: int = LiftingConfig.size
    """Texels per side of the texture that it is lifted into."""
    side_weight: float = TuningConfig.side_weight
    """How strongly side views are held to the shape before tuning."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        super().__post_init__()
        if not self.generator:
            raise ConfigError("invert.generator: expected a name or a path, got an empty string")
        check_ranges("invert", self, _RANGES)
        if self.tuning_resolution and self.tuning_resolution < 16:
            raise ConfigError(f"invert.tuning_resolution: expected 0 or at least 16, got {self.tuning_resolution}")
        self.method()

    def method(self) -> InversionConfig:
        """Return the library's settings.

        Raises:
            ConfigError: if a value is out of range.
        """
        return InversionConfig(
            ProjectionConfig(
                num_steps=self.projection_steps,
                lr=self.projection_lr,
                num_candidates=self.num_candidates,
                resolution=self.projection_resolution,
            ),
            TuningConfig(
                num_steps=self.tuning_steps,
                resolution=self.tuning_resolution or None,
                map_lr=self.map_lr,
                hair_lr=self.hair_lr,
                delta_lr=self.delta_lr,
                side_weight=self.side_weight,
            ),
            LossWeights(),
            LiftingConfig(self.lift_steps, self.lift_size),
        )


@dataclass(frozen=True)
class _Portraits:
    """Decoded records."""

    crops: Float[Tensor, "batch 3 512 512"]
    mattes: Float[Tensor, "batch 1 512 512"]
    landmarks: Float[Tensor, "batch 478 2"]
    camera: Float[Tensor, "batch 25"]
    head: HeadCoefficients


class InvertStage(Stage):
    """Inverts portraits; one that cannot be used says why."""

    name: ClassVar[str] = "invert"
    id_column: ClassVar[str] = "portrait_id"
    source_id_column: ClassVar[str] = "portrait_id"
    requires: ClassVar[tuple[str, ...]] = (
        "portrait_id",
        "crop",
        "matte",
        "landmarks",
        "camera",
        "identity_coeffs",
        "expression_coeffs",
        "is_usable",
        "usable_reason",
    )
    produces: ClassVar[tuple[Column, ...]] = (
        Column("portrait_id", Kind.STRING, "the portrait"),
        Column("capsule", Kind.FILE, "the inverted portrait", suffix=".safetensors"),
        Column("reconstruction", Kind.BYTES, "the generator's rendering of the photo's view, WebP"),
        Column("turned", Kind.BYTES, "views from -30 to 30 degrees of yaw side by side, WebP"),
        Column("psnr", Kind.FLOAT, "of the reconstruction inside the face, dB"),
        Column("ssim", Kind.FLOAT, "of the reconstruction inside the face"),
        Column("identity_similarity", Kind.FLOAT, "reconstruction against photo; 0.5 is the threshold of one person"),
        Column("landmark_error", Kind.FLOAT, "reconstruction against photo, median, in inter-pupil distances"),
        Column("invert_seconds", Kind.FLOAT, "time of the inversion"),
    )

    def __init__(self, config: InvertConfig) -> None:
        """Keep the settings; models are loaded by `setup`."""
        self.config = config
        self.batch_size = config.batch_size
        self._device = torch.device("cpu")
        self._loaded: tuple[PortraitGenerator, LatentStatistics, FacePack] | None = None

    def models(self) -> tuple[ModelPart, ...]:
        """Name the generator, the face pack's models and the head model."""
        return (generator_part(self.config.generator), *self.config.face_parts())

    def setup(self, device: torch.device) -> None:
        """Load the generator and the face pack."""
        self._device = device
        generator = load_generator(self.config.generator, device)
        pack = self.config.open_faces(device)
        self._loaded = generator, latent_statistics(generator, self.config.num_candidates), pack

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Return one row for every portrait.

        Raises:
            InputError: a portrait is not usable, or its crop cannot be read.
            FitError: an inversion diverges.
        """
        if self._loaded is None:
            raise RuntimeError("InvertStage.process was called before setup")
        generator, _, _ = self._loaded
        for record in batch:
            if not record["is_usable"]:
                raise InputError(f"portrait {record['portrait_id']} cannot be inverted: {record['usable_reason']}")
        together = len(batch) if generator.residual_shapes else 1
        rows: list[list[Record]] = []
        for start in range(0, len(batch), together):
            rows += self._invert(batch[start : start + together])
        return rows

    def _invert(self, records: Sequence[Record]) -> list[list[Record]]:
        if self._loaded is None:
            raise RuntimeError("InvertStage.process was called before setup")
        generator, statistics, pack = self._loaded
        began = time.perf_counter()
        portraits = decode_portraits(records, self._device)
        target = make_target(portraits, generator)
        checkpoint = GeneratorIdentity(self.config.generator, generator.describe().sha256)
        inversion = invert(generator, checkpoint, target, statistics, self.config.method())
        seconds = (time.perf_counter() - began) / len(records)
        measures = self._measures(pack, inversion, target, portraits)
        strips = [self._turned(inversion, portraits, index) for index in range(len(records))]
        images = to_uint8(inversion.reconstruction)
        return [
            [
                {
                    "portrait_id": record["portrait_id"],
                    "capsule": inversion.capsules[index].to_bytes(),
                    "reconstruction": encode_webp(images[index], is_lossless=False),
                    "turned": strips[index],
                    **{name: float(values[index]) for name, values in measures.items()},
                    "invert_seconds": seconds,
                }
            ]
            for index, record in enumerate(records)
        ]

    @torch.no_grad()
    def _measures(
        self, pack: FacePack, inversion: Inversion, target: InversionTarget, portraits: _Portraits
    ) -> dict[str, Tensor]:
        landmarks = pack.landmarks(inversion.reconstruction).points
        return {
            "psnr": inversion.psnr,
            "ssim": inversion.ssim,
            "identity_similarity": identity_similarity(pack, inversion.reconstruction, target.image),
            "landmark_error": landmark_error(landmarks, portraits.landmarks),
        }

    def _turned(self, inversion: Inversion, portraits: _Portraits, index: int) -> bytes:
        if self._loaded is None:
            raise RuntimeError("InvertStage.process was called before setup")
        settings = RenderSettings(size=TURNED_SIZE)
        part = slice(index, index + 1)
        capsule = inversion.capsules[index]
        animator = PortraitAnimator(self._loaded[0], capsule, portraits.crops[part], portraits.mattes[part], settings)
        own = animator.own_angles_deg
        angles = torch.stack([torch.stack([own.new_tensor(yaw), own[1], own[2]]) for yaw in TURNED_YAWS_DEG])
        frames = np.concatenate(list(animator.frames(animator.expression.expand(len(angles), -1), angles)))
        return contact_sheet(frames, columns=len(angles))


def decode_portraits(records: Sequence[Record], device: torch.device) -> _Portraits:
    """Decode the portraits of a batch.

    Raises:
        InputError: naming the portrait whose crop, matte or camera is not usable.
    """
    crops, mattes = [], []
    for record in records:
        crop, matte = decode_image(record["crop"]), decode_grey(record["matte"])
        if crop.shape[:2] != matte.shape or crop.shape[0] != crop.shape[1]:
            raise InputError(
                f"portrait {record['portrait_id']}: expected a square crop and a matte of its size, "
                f"got {crop.shape[:2]} and {matte.shape}"
            )
        crops.append(crop)
        mattes.append(matte)

    def stacked(name: str) -> Tensor:
        values = torch.from_numpy(np.stack([np.asarray(record[name], np.float32) for record in records])).to(device)
        for record, value in zip(records, values, strict=True):
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"portrait {record['portrait_id']}, {name}: expected finite numbers, got NaN")
        return values

    stacked_mattes = torch.from_numpy(np.stack(mattes)).to(device)[:, None].float() / 255
    head = HeadCoefficients(stacked("identity_coeffs"), stacked("expression_coeffs"))
    return _Portraits(to_tensor(crops, device), stacked_mattes, stacked("landmarks"), stacked("camera"), head)


def make_target(portraits: _Portraits, generator: PortraitGenerator) -> InversionTarget:
    """Return what the generator is to reproduce, at its image size."""
    size = generator.img_resolution
    images: Any = F.interpolate(portraits.crops, (size, size), mode="bilinear", antialias=True)
    mattes = F.interpolate(portraits.mattes, (size, size), mode="bilinear", antialias=True)
    is_headed = mesh_of(generator) is not None
    if not is_headed:
        # Without a head of its own the generator renders the background too.
        mattes = torch.ones_like(mattes)
    background = clean_background(images * 0.5 + 0.5, person_matte(mattes)) * 2 - 1
    return InversionTarget(
        image=images,
        background=background,
        matte=mattes,
        face=face_mask(portraits.landmarks, size),
        weight=pixel_weight(portraits.landmarks, mattes),
        camera=portraits.camera,
        head=portraits.head if is_headed else None,
    )
