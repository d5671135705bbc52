"""Edit: every portrait becomes one row per attribute edit, each with its own capsule; the unedited one is first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from galatea.animation.rendering import PortraitAnimator, RenderSettings
from galatea.editing.directions import UNEDITED, apply_edit, edit_of
from galatea.eg3d.checkpoint import load_generator, read_facts
from galatea.errors import ConfigError
from galatea.images import decode_grey, decode_image, encode_webp, to_tensor
from galatea.inversion.capsule import Capsule
from stages.base import Column, Kind, ModelPart, Record, Stage
from stages.generator_provenance import generator_part
from stages.provenance import head_parts


@dataclass(frozen=True)
class EditConfig:
    """Settings of the edit stage."""

    generator: str = "builtin"
    """Name or path of the generator checkpoint that the capsules were made with."""
    edits: tuple[str, ...] = ("older", "smile", "fuller_face")
    """Edits by name; the unedited portrait is always there too."""
    strength: float = 1.0
    """1 = as designed; negative strengths edit the other way (younger)."""
    image_size: int = 256
    """Pixels a side of the picture of each edit."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: naming the field.
        """
        if not self.generator:
            raise ConfigError("edit.generator: expected a name or a path, got an empty string")
        for name in self.edits:
            edit_of(name)
        if len(set(self.edits)) != len(self.edits):
            raise ConfigError(f"edit.edits: expected every name once, got {list(self.edits)}")
        if not -3 <= self.strength <= 3:
            raise ConfigError(f"edit.strength: expected -3 to 3, got {self.strength}")
        if not 64 <= self.image_size <= 1024 or self.image_size % 2:
            raise ConfigError(f"edit.image_size: expected an even number from 64 to 1024, got {self.image_size}")


class EditStage(Stage):
    """Moves portraits along semantic directions; identity and photo detail stay."""

    name: ClassVar[str] = "edit"
    id_column: ClassVar[str] = "edit_id"
    source_id_column: ClassVar[str] = "portrait_id"
    requires: ClassVar[tuple[str, ...]] = ("portrait_id", "capsule", "crop", "matte")
    produces: ClassVar[tuple[Column, ...]] = (
        Column("edit_id", Kind.STRING, "portrait_id and the edit"),
        Column("portrait_id", Kind.STRING, "the portrait"),
        Column("edit", Kind.STRING, "name of the edit, none = the portrait as it is"),
        Column("strength", Kind.FLOAT, "strength of the edit"),
        Column("capsule", Kind.FILE, "the portrait capsule with the edit in it", suffix=".safetensors"),
        Column("image", Kind.BYTES, "the edited portrait in its own pose, WebP"),
    )
    batch_size: int = 4

    def __init__(self, config: EditConfig) -> None:
        """Keep the settings; models are loaded by `setup`."""
        self.config = config
        self._device = torch.device("cpu")
        self._generator: Any = None

    def models(self) -> tuple[ModelPart, ...]:
        """Name the generator and the head model.

        Raises:
            ConfigError: edits are asked of a generator that knows none, which is found out before anything runs.
            WeightsError: if the generator is missing.
        """
        if self._names() and read_facts(self.config.generator).kind != "anchored":
            raise ConfigError(
                f"edit.edits: generator {self.config.generator} has no semantic code and no head, so it cannot do "
                f"{', '.join(self._names())}; add edit=none"
            )
        return (generator_part(self.config.generator), *head_parts())

    def setup(self, device: torch.device) -> None:
        """Load the generator."""
        self._device = device
        self._generator = load_generator(self.config.generator, device)

    def process(self, batch: Sequence[Record]) -> list[list[Record]]:
        """Return one row per edit for every portrait.

        Raises:
            InputError: a capsule is damaged.
            WeightsError: a capsule was made with another generator.
        """
        return [[self._edited(record, name) for name in (UNEDITED, *self._names())] for record in batch]

    def _names(self) -> tuple[str, ...]:
        return tuple(name for name in self.config.edits if name != UNEDITED)

    def _edited(self, record: Record, name: str) -> Record:
        capsule = Capsule.from_bytes(record["capsule"])
        edited = apply_edit(self._generator, capsule, name, self.config.strength)
        photo = to_tensor([decode_image(record["crop"])], self._device)
        matte = torch.from_numpy(decode_grey(record["matte"]) / 255.0).float()[None, None].to(self._device)
        animator = PortraitAnimator(
            self._generator, edited, photo, matte, RenderSettings(size=self.config.image_size, batch_size=1)
        )
        (frames,) = animator.frames(animator.expression, animator.own_angles_deg[None])
        return {
            "edit_id": f"{record['portrait_id']}.{name}",
            "portrait_id": record["portrait_id"],
            "edit": name,
            "strength": 0.0 if name == UNEDITED else self.config.strength,
            "capsule": edited.to_bytes(),
            "image": encode_webp(frames[0], quality=90, is_lossless=False),
        }
