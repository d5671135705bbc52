"""The face models that a stage reads with: which, and from where."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from galatea.errors import ConfigError
from galatea.faces.packs import FacePack, open_pack
from stages.base import ModelPart
from stages.provenance import face_parts, head_parts


@dataclass(frozen=True)
class FaceModels:
    """Settings that every stage has that reads faces; `faces.pack` and `faces.root` set them for all at once."""

    faces_pack: str = "open"
    """Which models find faces and measure identity: `open` or `insightface`."""
    faces_root: str = ""
    """Folder of a pack that the user supplies; "" = insightface's own."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        if not self.faces_pack:
            stage = type(self).__name__.removesuffix("Config").lower()
            raise ConfigError(f"{stage}.faces_pack: expected the name of a face pack, got an empty string")

    def face_parts(self) -> tuple[ModelPart, ...]:
        """Name the face pack's models and the head model that is fitted to what they read.

        Raises:
            WeightsError: if one is not installed.
        """
        return (*face_parts(self.faces_pack, self.faces_root), *head_parts())

    def open_faces(self, device: torch.device) -> FacePack:
        """Load the face pack.

        Raises:
            ConfigError: if there is no pack of this name.
            WeightsError: if its weights are missing.
        """
        return open_pack(self.faces_pack, device, self.faces_root or None)
