"""Generator checkpoints: a safetensors file with the weights, beside it a JSON file with configuration and provenance.

Nothing is executed on loading. Names and shapes are compared before memory is taken, and the hash of the weights before
they are used.
"""

from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from galatea.eg3d.configuration import config_from_json
from galatea.eg3d.generator import TriPlaneGenerator
from galatea.eg3d.provenance import GeneratorFacts
from galatea.errors import WeightsError

if TYPE_CHECKING:
    from galatea.eg3d.anchored import AnchoredGenerator

    Generator: TypeAlias = TriPlaneGenerator | AnchoredGenerator

G = TypeVar("G", bound=nn.Module)

FORMAT = "galatea-generator"
FORMAT_VERSION = 1
BUILTIN = "builtin"
BUILTIN_FOLDER = Path(__file__).parents[1] / "data"
BUILTIN_STEM = "builtin_generator"
KINDS = {
    "plain": ("galatea.eg3d.generator", "TriPlaneGenerator"),
    "anchored": ("galatea.eg3d.anchored", "AnchoredGenerator"),
}
"""Module and class of every kind of generator. A class has `config_class` and is built from one configuration."""
MAX_CONFIG_BYTES = 1 << 20
MAX_NAMES_IN_MESSAGE = 5


def load_generator(name_or_path: str | Path = BUILTIN, device: str | torch.device = "cpu") -> Generator:
    """Load a generator, in evaluation mode, in float32, without gradients.

    Args:
        name_or_path: "builtin", or a checkpoint: its folder, its .json or its .safetensors file.
        device: where to put it.

    Raises:
        WeightsError: if the checkpoint is missing, damaged, of another kind, or does not fit its configuration.
    """
    config_path = _config_path(name_or_path)
    document = _read_document(config_path)
    weights_path = config_path.with_name(str(document["weights"]["file"]))
    generator_class = _generator_class(document["kind"], config_path)
    config = config_from_json(generator_class.config_class, document["config"], str(config_path))
    sha256 = hash_file(weights_path)
    if sha256 != document["weights"]["sha256"]:
        raise WeightsError(
            f"{weights_path}: damaged or exchanged: expected sha256 {document['weights']['sha256']}, found {sha256}; "
            "fetch or import the checkpoint again"
        )
    state = read_weights(weights_path, expected_shapes(generator_class, config))
    generator = build(generator_class, config, state)
    generator.facts = _facts(document)
    return generator.to(device)


def read_facts(name_or_path: str | Path = BUILTIN) -> GeneratorFacts:
    """Return provenance and hash of a checkpoint from its JSON file, without reading the weights.

    Raises:
        WeightsError: if the checkpoint is missing or its JSON file is damaged.
    """
    path = _config_path(name_or_path)
    document = _read_document(path)
    if not path.with_name(str(document["weights"]["file"])).is_file():
        raise WeightsError(
            f"{path}: the weights {document['weights']['file']} beside it are missing; import them again"
        )
    return _facts(document)


def _facts(document: Mapping[str, Any]) -> GeneratorFacts:
    facts = {field.name: document["provenance"].get(field.name) for field in dataclasses.fields(GeneratorFacts)}
    facts |= {"kind": document["kind"], "sha256": document["weights"]["sha256"]}
    return GeneratorFacts(**{key: value for key, value in facts.items() if value is not None})


def save_generator(
    generator: Generator,
    folder: str | Path,
    facts: GeneratorFacts,
    stem: str = BUILTIN_STEM,
    dtype: torch.dtype = torch.float32,
) -> GeneratorFacts:
    """Write a checkpoint and return its facts with the hash of the weights.

    Args:
        generator: what to save.
        folder: where to; made if missing.
        facts: provenance; kind, sha256 and the number of parameters are filled in here.
        stem: file name without ending.
        dtype: type of stored floating-point weights; float16 halves the file, loading gives float32 again.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    state = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    weights_path = folder / f"{stem}.safetensors"
    temporary = weights_path.with_suffix(".partial")
    temporary.write_bytes(safetensors.torch.save(state))  # not save_file: it hides the file from other users
    kind = next(kind for kind, (_, name) in KINDS.items() if name == type(generator).__name__)
    num_parameters = sum(parameter.numel() for parameter in generator.parameters())
    facts = dataclasses.replace(facts, kind=kind, sha256=hash_file(temporary), num_parameters=num_parameters)
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "kind": kind,
        "weights": {"file": weights_path.name, "sha256": facts.sha256, "num_bytes": temporary.stat().st_size},
        "provenance": dataclasses.asdict(facts),
        "config": dataclasses.asdict(generator.config),
    }
    temporary.replace(weights_path)
    config_path = weights_path.with_suffix(".json")
    temporary_config = config_path.with_suffix(".json.partial")
    temporary_config.write_text(json.dumps(document, indent=1) + "\n")
    temporary_config.replace(config_path)
    return facts


def build(generator_class: type[G], config: Any, state: Mapping[str, Tensor]) -> G:
    """Return a generator with these weights; the global random state is left as it was."""
    with torch.random.fork_rng(devices=[]):
        generator = generator_class(config)
    generator.load_state_dict(dict(state), strict=True)
    return generator.eval().requires_grad_(False)


def expected_shapes(generator_class: type[Generator], config: Any) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every weight of a configuration without allocating it."""
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in generator_class(config).state_dict().items()}


def compare_shapes(found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], what: str) -> None:
    """Check that names and shapes agree.

    Raises:
        WeightsError: listing what is missing, unknown, or of another shape.
    """
    missing = sorted(expected.keys() - found.keys())
    unknown = sorted(found.keys() - expected.keys())
    shapes = [
        f"{k}: expected {expected[k]}, found {found[k]}" for k in expected if k in found and found[k] != expected[k]
    ]
    problems = [
        f"{label} ({len(items)}): {', '.join(items[:MAX_NAMES_IN_MESSAGE])}"
        for label, items in (("missing", missing), ("unknown", unknown), ("wrong shape", shapes))
        if items
    ]
    if problems:
        raise WeightsError(f"{what}: the weights do not fit the configuration; " + "; ".join(problems))


def read_weights(path: Path, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read weights of known names and shapes as float32.

    Raises:
        WeightsError: if the file is damaged, does not fit, or holds NaN or infinity.
    """
    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            compare_shapes({name: tuple(file.get_slice(name).get_shape()) for name in names}, expected, str(path))
            state = {name: file.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise WeightsError(f"{path}: not a readable safetensors file ({error}); fetch or import it again") from error
    return {name: check_finite(value, f"{path}: {name}") for name, value in state.items()}


def check_finite(value: Tensor, what: str) -> Tensor:
    """Return a weight as float32.

    Raises:
        WeightsError: if it holds NaN or infinity.
    """
    value = value.float()
    if not bool(torch.isfinite(value).all()):
        raise WeightsError(f"{what}: holds NaN or infinity")
    return value


def hash_file(path: Path) -> str:
    """Return the sha256 of a file.

    Raises:
        WeightsError: if it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error.strerror})") from error


def _config_path(name_or_path: str | Path) -> Path:
    """Return the JSON file of a checkpoint."""
    path = BUILTIN_FOLDER / f"{BUILTIN_STEM}.json" if name_or_path == BUILTIN else Path(name_or_path)
    if path.is_dir():
        candidates = sorted(path.glob("*.json"))
        if len(candidates) != 1:
            raise WeightsError(f"{path}: expected one checkpoint (.json with .safetensors), found {len(candidates)}")
        return candidates[0]
    if path.suffix == ".pkl":
        raise WeightsError(
            f"{path}: a pickle is not loaded directly; import it first: galatea models import eg3d {path}"
        )
    if path.suffix not in ("", ".json", ".safetensors"):
        raise WeightsError(
            f"{path}: not a checkpoint of Galatea's; expected {BUILTIN!r}, or a .json with its .safetensors "
            "(what `galatea models import` makes)"
        )
    return path.with_suffix(".json")


def _read_document(path: Path) -> dict[str, Any]:
    """Read and check the JSON file of a checkpoint."""
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise WeightsError(f"{path}: larger than {MAX_CONFIG_BYTES} bytes; not a generator's configuration")
        document = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise WeightsError(
            f"{path}: no such checkpoint; expected {BUILTIN!r} or the path of an imported one"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise WeightsError(f"{path}: not a generator checkpoint (no format {FORMAT!r})")
    if document.get("format_version") != FORMAT_VERSION:
        raise WeightsError(
            f"{path}: expected format version {FORMAT_VERSION}, found {document.get('format_version')!r}"
        )
    weights = document.get("weights")
    if not isinstance(weights, dict) or not isinstance(weights.get("sha256"), str):
        raise WeightsError(f"{path}: 'weights' must give the file and its sha256")
    if Path(str(weights.get("file"))).name != weights.get("file"):
        raise WeightsError(f"{path}: 'weights' : 'file' must be the name of a file beside it")
    if not isinstance(document.get("provenance"), dict):
        raise WeightsError(f"{path}: 'provenance' is missing")
    return document


def _generator_class(kind: object, path: Path) -> type[Generator]:
    """Return the class of a kind of generator."""
    if not isinstance(kind, str) or kind not in KINDS:
        raise WeightsError(f"{path}: unknown kind {kind!r}; expected one of {sorted(KINDS)}")
    module, name = KINDS[kind]
    loaded: type[Generator] = getattr(importlib.import_module(module), name)
    return loaded
