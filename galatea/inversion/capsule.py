"""The portrait capsule: everything that one inverted portrait is, in one small safetensors file.

A capsule belongs to one checkpoint of one generator: its latents and residuals mean nothing to another one, so the
checkpoint's sha256 is part of it and is compared before use. Latents, camera and coefficients are float32; residual
maps and weight deltas are float16 (their rounding is far below one grey level of the rendering).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

from galatea.errors import InputError, WeightsError

FORMAT = "galatea.capsule"
VERSION = 1
_RESIDUAL, _DELTA = "residual.", "delta."
_VECTORS = ("w_plus", "w_offset", "camera", "identity", "identity_offset", "expression", "expression_offset")


@dataclass(frozen=True)
class Capsule:
    """One inverted portrait, with the edit that is applied to it.

    Edits live in the `*_offset` fields, beside the inversion: the unedited portrait can always be rendered from the
    same file, which is how fine detail of the photo is carried over to the edited one.
    """

    w_plus: Float[Tensor, "num_ws w_dim"]
    camera: Float[Tensor, "25"]
    identity: Float[Tensor, "num_identity"]
    """Head-model identity in standard deviations; of length 0 for generators without a head."""
    expression: Float[Tensor, "num_actions"]
    """The photo's own expression, 52 ARKit coefficients; of length 0 for generators without a head."""
    generator: str
    """Name of the generator (`builtin`, ...)."""
    generator_sha256: str
    residuals: Mapping[str, Tensor] = field(default_factory=dict)
    """Additive maps of this identity, named as in the generator's `residual_shapes`."""
    delta: Mapping[str, Tensor] = field(default_factory=dict)
    """Low-rank factors of weight changes, `<parameter>.left` (out, rank) and `<parameter>.right` (rank, in)."""
    w_offset: Float[Tensor, "num_ws w_dim"] | None = None
    identity_offset: Float[Tensor, "num_identity"] | None = None
    expression_offset: Float[Tensor, "num_actions"] | None = None
    edit: str = "none"
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """Return the capsule as one safetensors file."""
        tensors = {name: _stored(getattr(self, name), torch.float32) for name in _VECTORS if _is_set(self, name)}
        tensors |= {_RESIDUAL + name: _stored(value, torch.float16) for name, value in self.residuals.items()}
        tensors |= {_DELTA + name: _stored(value, torch.float16) for name, value in self.delta.items()}
        facts = {
            "version": VERSION,
            "generator": self.generator,
            "generator_sha256": self.generator_sha256,
            "edit": self.edit,
            "metrics": dict(self.metrics),
        }
        # One metadata key: safetensors writes several of them in an arbitrary order, and equal capsules must be
        # equal bytes.
        return safetensors.torch.save(tensors, {FORMAT: json.dumps(facts, sort_keys=True)})

    @staticmethod
    def from_bytes(data: bytes) -> Capsule:
        """Read and validate a capsule.

        Raises:
            InputError: if the bytes are not a whole, finite capsule of a known version.
        """
        tensors, facts = _load(data)
        missing = [name for name in ("w_plus", "camera", "identity", "expression") if name not in tensors]
        if missing:
            raise InputError(f"capsule: expected tensors w_plus, camera, identity, expression; missing {missing}")
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                raise InputError(f"capsule: tensor {name} holds values that are not finite; invert the portrait again")
        vectors = {name: tensors[name].float() for name in _VECTORS if name in tensors}
        _check_shapes(vectors)
        return Capsule(
            **vectors,
            residuals=_group(tensors, _RESIDUAL),
            delta=_group(tensors, _DELTA),
            generator=str(facts["generator"]),
            generator_sha256=str(facts["generator_sha256"]),
            edit=str(facts["edit"]),
            metrics=_metrics(facts["metrics"]),
        )

    def require_generator(self, sha256: str) -> None:
        """Refuse a generator other than the one that the capsule was made with.

        Raises:
            WeightsError: if the checkpoint's hash differs.
        """
        if sha256 != self.generator_sha256:
            raise WeightsError(
                f"capsule was made with generator {self.generator!r} of sha256 {self.generator_sha256[:16]}, got one "
                f"of sha256 {sha256[:16]}; use that checkpoint or invert the portrait again"
            )


def _is_set(capsule: Capsule, name: str) -> bool:
    return getattr(capsule, name) is not None


def _stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a detached CPU copy; float16 saturates instead of becoming infinite."""
    value = value.detach().cpu()
    if dtype is torch.float16:
        limit = torch.finfo(torch.float16).max
        value = value.clamp(-limit, limit)
    return value.to(dtype).contiguous().clone()


def _load(data: bytes) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        tensors = safetensors.torch.load(data)
        header_size = int.from_bytes(data[:8], "little")
        metadata = json.loads(data[8 : 8 + header_size]).get("__metadata__", {})
        facts = json.loads(metadata.get(FORMAT, "null"))
    except (SafetensorError, ValueError) as error:
        raise InputError(f"capsule: expected a safetensors file, got {len(data)} unreadable bytes ({error})") from error
    if not isinstance(facts, dict):
        raise InputError(f"capsule: expected a file of format {FORMAT!r}, got one with metadata {sorted(metadata)}")
    if facts.get("version") != VERSION:
        raise InputError(
            f"capsule: expected version {VERSION}, got {facts.get('version')!r}; invert the portrait again"
        )
    missing = [name for name in ("generator", "generator_sha256", "edit", "metrics") if name not in facts]
    if missing:
        raise InputError(f"capsule: metadata lacks {missing}")
    return tensors, facts


def _check_shapes(vectors: Mapping[str, Tensor]) -> None:
    if vectors["w_plus"].ndim != 2:
        raise InputError(f"capsule: expected w_plus of shape (num_ws, w_dim), got {tuple(vectors['w_plus'].shape)}")
    if vectors["camera"].shape != (25,):
        raise InputError(f"capsule: expected camera of shape (25,), got {tuple(vectors['camera'].shape)}")
    for base, offset in (("w_plus", "w_offset"), ("identity", "identity_offset"), ("expression", "expression_offset")):
        if offset in vectors and vectors[offset].shape != vectors[base].shape:
            raise InputError(
                f"capsule: expected {offset} of the shape of {base} {tuple(vectors[base].shape)}, "
                f"got {tuple(vectors[offset].shape)}"
            )


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value.float() for name, value in tensors.items() if name.startswith(prefix)}


def _metrics(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, dict) or not all(isinstance(value, int | float) for value in metrics.values()):
        raise InputError("capsule: expected metrics as an object of numbers")
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}
