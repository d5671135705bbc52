"""Settings of what surrounds the stages: executor, storage, tracking, faces, report.

Plain frozen dataclasses, so that the engine and its workers need no configuration library; the stages' own settings
live beside them in `stages/`. Defaults live here and nowhere else; `conf/` names only what a preset changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from galatea.errors import ConfigError

EXECUTORS = ("local", "ray")
FACE_PACKS = ("open", "insightface")
TRACKING_MODES = ("on", "off")


def _require(is_ok: bool, name: str, expected: str, got: object) -> None:
    if not is_ok:
        raise ConfigError(f"{name}: expected {expected}, got {got!r}.")


@dataclass(frozen=True)
class ExecutorConfig:
    """Where and how the batches of a stage run."""

    kind: str = "ray"
    """`ray`: pools of actors on this machine or a cluster; `local`: in this process, one batch after the other."""
    address: str = ""
    """Ray cluster to join: "" starts Ray on this machine, "auto" joins the one that runs here, or `ray://host:10001`."""
    num_actors: int = 0
    """Actors of a stage; 0 = as many as the cluster's resources hold."""
    gpus_per_actor: float = 0.0
    """GPUs that an actor takes where the cluster has some, such as 0.25 or 1; 0 = what the stage asks for (a half)."""
    max_in_flight: int = 2
    """Batches that are queued for one actor (one computes, the others are fetched and decoded meanwhile)."""
    batch_size: int = 0
    """Records of a batch; 0 = what the stage asks for."""
    device: str = "auto"
    """`auto` (the actor's GPU where it has one, else the CPU), `cpu` or `cuda`; for `local` also `cuda:N`."""
    shard_rows: int = 256
    """Every finished batch is published at once; a journal shard is full after this many rows ..."""
    shard_seconds: float = 30.0
    """... or this many seconds, whichever comes first, and a new one is begun."""
    num_cpus: int = 0
    """CPUs of the Ray that is started on this machine; 0 = all."""
    max_restarts: int = 64
    """How often actors of a stage may die, beyond once for every batch that is finished, before the run is given up."""
    grace_seconds: float = 20.0
    """How long batches in flight may take to finish after Ctrl-C or SIGTERM; a second Ctrl-C ends at once."""
    retry_failed: bool = False
    """Compute failed and quarantined records again, although nothing that they depend on has changed."""

    def __post_init__(self) -> None:
        _require(self.kind in EXECUTORS, "executor.kind", " or ".join(EXECUTORS), self.kind)
        _require(self.num_actors >= 0, "executor.num_actors", "0 (automatic) or more", self.num_actors)
        _require(self.max_in_flight >= 1, "executor.max_in_flight", "1 or more", self.max_in_flight)
        _require(self.batch_size >= 0, "executor.batch_size", "0 (the stage's own) or more", self.batch_size)
        _require(self.shard_rows >= 1, "executor.shard_rows", "1 or more", self.shard_rows)
        _require(self.shard_seconds > 0, "executor.shard_seconds", "more than 0 seconds", self.shard_seconds)
        _require(self.num_cpus >= 0, "executor.num_cpus", "0 (all) or more", self.num_cpus)
        _require(self.max_restarts >= 0, "executor.max_restarts", "0 or more", self.max_restarts)
        _require(self.grace_seconds >= 0, "executor.grace_seconds", "0 or more seconds", self.grace_seconds)
        share = self.gpus_per_actor
        is_share = 0 <= share <= 1 or (share > 1 and float(share).is_integer())
        _require(is_share, "executor.gpus_per_actor", "0 (the stage's own), a share of 1, or whole GPUs", share)
        is_numbered = self.kind == "local" and self.device.removeprefix("cuda:").isdigit()
        expected = "auto, cpu or cuda (Ray says which of the GPUs; cuda:N is for executor.kind=local)"
        _require(is_numbered or self.device in ("auto", "cpu", "cuda"), "executor.device", expected, self.device)


@dataclass(frozen=True)
class StorageConfig:
    """How inputs and the run folder are read and written (any fsspec URL)."""

    options: Mapping[str, object] = field(default_factory=dict)
    """Options of the file system of both, as fsspec takes them (for example `endpoint_url`)."""
    max_photo_pixels: int = 100_000_000
    """A photo with more pixels is rejected before it is decoded (decompression bomb)."""
    max_photo_bytes: int = 200_000_000
    """A larger photo file is rejected unread."""
    prune: bool = False
    """Delete results of photos and drivers that are not asked for any more; without it such a run is refused."""

    def __post_init__(self) -> None:
        _require(self.max_photo_pixels > 0, "storage.max_photo_pixels", "more than 0", self.max_photo_pixels)
        _require(self.max_photo_bytes > 0, "storage.max_photo_bytes", "more than 0", self.max_photo_bytes)


@dataclass(frozen=True)
class TrackingConfig:
    """What is told to MLflow."""

    mode: str = "on"
    """`on` or `off`."""
    uri: str = ""
    """MLflow tracking URI; "" = $MLFLOW_TRACKING_URI, or an SQLite file in Galatea's home folder."""
    experiment: str = "galatea"
    artifact_location: str = ""
    """Where a new experiment keeps its artefacts; "" = beside the SQLite file, or what the server decides."""
    num_sample_clips: int = 12

    def __post_init__(self) -> None:
        _require(self.mode in TRACKING_MODES, "tracking.mode", " or ".join(TRACKING_MODES), self.mode)
        _require(bool(self.experiment), "tracking.experiment", "a name", self.experiment)
        _require(self.num_sample_clips >= 0, "tracking.num_sample_clips", "0 or more", self.num_sample_clips)


@dataclass(frozen=True)
class FacesConfig:
    """Which models read faces, for all stages that do."""

    pack: str = "open"
    """`open` (commercial use allowed) or `insightface` (research; the user supplies the model folder)."""
    root: str = ""
    """Folder of the insightface pack; "" = insightface's own."""

    def __post_init__(self) -> None:
        _require(self.pack in FACE_PACKS, "faces.pack", " or ".join(FACE_PACKS), self.pack)


@dataclass(frozen=True)
class ReportConfig:
    """The report page."""

    max_portraits: int = 60
    """Portraits shown with pictures; the page says how many there are in all."""
    max_megabytes: float = 40.0
    """Budget of the pictures and clips inside the page; clips beyond it become stills."""

    def __post_init__(self) -> None:
        _require(self.max_portraits >= 0, "report.max_portraits", "0 or more", self.max_portraits)
        _require(self.max_megabytes > 0, "report.max_megabytes", "more than 0", self.max_megabytes)
