"""One card for each portrait: source, reconstruction, turned views, moving clips, edits, and how well it went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pipeline.report.pictures import Budget, Picture, moving, still, strip

NO_EDIT = "none"
_MAX_CLIPS, _MAX_EDITS = 12, 12
_CLIP_SHARE = 0.8
"""Share of the page's budget that clips may use."""

Row = Mapping[str, Any]


class RunSource(Protocol):
    """What the report reads of a run."""

    def facts(self, stage: str) -> list[Row]:
        """Every row of a stage without its pictures and tensors; [] where the stage has not run."""

    def models(self, stage: str) -> list[str]:
        """The distinct lists of models, as JSON, of the rows of a stage."""

    def pictures(self, stage: str, positions: Sequence[int], columns: Sequence[str]) -> list[Row]:
        """Heavy columns of the rows at these positions of `facts`; columns of files hold their bytes."""


@dataclass(frozen=True)
class Score:
    """A figure on a card."""

    label: str
    value: str
    doc: str


@dataclass(frozen=True)
class Shot:
    """A captioned picture."""

    caption: str
    picture: Picture
    group: str = ""


@dataclass(frozen=True)
class Card:
    """All that the page shows of a portrait."""

    portrait_id: str
    name: str
    face: str
    verdict: str
    verdict_reason: str
    scores: tuple[Score, ...]
    source: Picture | None
    reconstruction: Picture | None
    turned: Picture | None
    clips: tuple[Shot, ...]
    edits: tuple[Shot, ...]
    sort_keys: Mapping[str, float] = field(default_factory=dict)


_SCORES = (
    ("identity_similarity", "identity", "{:.2f}", "Similarity of the face in the reconstruction and in the photo"),
    ("psnr", "PSNR", "{:.1f} dB", "Peak signal-to-noise ratio of the reconstruction"),
    ("ssim", "SSIM", "{:.2f}", "Structural similarity of the reconstruction"),
)


@dataclass(frozen=True)
class _Index:
    """Rows of the later stages by the portrait that they belong to, with their positions in their manifests."""

    inversions: Mapping[str, list[tuple[int, Row]]]
    edits: Mapping[str, list[tuple[int, Row]]]
    clips: Mapping[str, list[tuple[int, Row]]]
    scores: Mapping[str, Row]


def build_cards(source: RunSource, max_portraits: int, max_bytes: int) -> tuple[list[Card], int]:
    """The cards of a run, evenly sampled where there are too many portraits.

    Returns:
        The cards, and the number of all portraits.
    """
    portraits = [(position, row) for position, row in enumerate(source.facts("align")) if row["status"] == "done"]
    shown = _evenly(portraits, max_portraits)
    ids = {row["portrait_id"] for _, row in shown}
    index = _Index(
        inversions=_by_portrait(source.facts("invert"), "portrait_id", ids),
        edits=_by_portrait(source.facts("edit"), "edit_id", ids),
        clips=_by_portrait(source.facts("animate"), "clip_id", ids),
        scores={str(row["subject_id"]): row for row in source.facts("evaluate") if row.get("subject_id") in ids},
    )
    budget = Budget(max_bytes)
    clip_bytes = int(max_bytes * _CLIP_SHARE / max(1, sum(min(len(index.clips[key]), _MAX_CLIPS) for key in ids)))
    # Binary data grows by a third as a data URI.
    clip_bytes = clip_bytes * 3 // 4
    return [_card(source, index, position, row, budget, clip_bytes) for position, row in shown], len(portraits)


def _card(source: RunSource, index: _Index, position: int, row: Row, budget: Budget, clip_bytes: int) -> Card:
    key = str(row["portrait_id"])
    name, face, who = _file_name(row), _face_name(row), portrait_name(row)
    crop = source.pictures("align", [position], ["crop"])[0]
    inversion = next(iter(index.inversions[key]), None)
    made = source.pictures("invert", [inversion[0]], ["reconstruction", "turned"])[0] if inversion else {}
    judged = index.scores.get(key) or (inversion[1] if inversion else {})
    return Card(
        portrait_id=key,
        name=name,
        face=face,
        verdict=str(judged.get("verdict") or ""),
        verdict_reason=str(judged.get("verdict_reason") or ""),
        scores=_scores(judged),
        source=still(crop.get("crop"), f"Photo: {who}", budget),
        reconstruction=still(made.get("reconstruction"), f"Reconstruction of {who}", budget),
        turned=strip(made.get("turned"), f"{who}, turned from one side to the other", budget),
        clips=_clips(source, index, key, who, budget, clip_bytes),
        edits=_edits(source, index, key, who, budget),
        sort_keys={name: float(judged[name]) for name, *_ in _SCORES if _is_number(judged.get(name))},
    )


def portrait_name(row: Row) -> str:
    """What people call a portrait: its photo, and which face it is where there are several."""
    return ", ".join(part for part in (_file_name(row), _face_name(row)) if part)


def _file_name(row: Row) -> str:
    return str(row.get("uri") or row["portrait_id"]).rstrip("/").rpartition("/")[2]


def _face_name(row: Row) -> str:
    num_faces = int(row.get("num_faces") or 1)
    return f"face {int(row.get('face_index') or 0) + 1} of {num_faces}" if num_faces > 1 else ""


def _clips(source: RunSource, index: _Index, key: str, who: str, budget: Budget, clip_bytes: int) -> tuple[Shot, ...]:
    # The portrait itself first, its edits after it.
    rows = sorted(index.clips[key], key=lambda item: _edit_of(item[1]["clip_id"]) != NO_EDIT)[:_MAX_CLIPS]
    shots = []
    for (_, row), heavy in zip(rows, source.pictures("animate", [at for at, _ in rows], ["preview"]), strict=True):
        edit, driver = _edit_of(row["clip_id"]), _driver_of(row["clip_id"])
        caption = driver if edit == NO_EDIT else f"{driver}, edit {edit}"
        picture = moving(heavy.get("preview"), f"{who}, animated: {caption}", budget, clip_bytes)
        if picture is not None:
            shots.append(Shot(caption, picture, edit))
    return tuple(shots)


def _edits(source: RunSource, index: _Index, key: str, who: str, budget: Budget) -> tuple[Shot, ...]:
    rows = [item for item in index.edits[key] if item[1].get("edit") != NO_EDIT][:_MAX_EDITS]
    shots = []
    for (_, row), heavy in zip(rows, source.pictures("edit", [at for at, _ in rows], ["image"]), strict=True):
        picture = still(heavy.get("image"), f"{who}, edited: {row['edit']}", budget)
        if picture is not None:
            shots.append(Shot(f"edit {row['edit']}", picture))
    return tuple(shots)


def _scores(row: Row) -> tuple[Score, ...]:
    return tuple(
        Score(label, form.format(row[name]), doc) for name, label, form, doc in _SCORES if _is_number(row.get(name))
    )


def _by_portrait(rows: Iterable[Row], id_column: str, ids: set[str]) -> Mapping[str, list[tuple[int, Row]]]:
    found: defaultdict[str, list[tuple[int, Row]]] = defaultdict(list)
    for position, row in enumerate(rows):
        if row["status"] == "done":
            portrait = str(row[id_column]).split(".", 1)[0]
            if portrait in ids:
                found[portrait].append((position, row))
    return found


def _edit_of(clip_id: str) -> str:
    """`<portrait>.<edit>.<driver>`: see the ids of the stages edit and animate."""
    return clip_id.split(".", 2)[1]


def _driver_of(clip_id: str) -> str:
    return clip_id.split(".", 2)[2]


def _evenly(items: Sequence[tuple[int, Row]], count: int) -> list[tuple[int, Row]]:
    if len(items) <= count:
        return list(items)
    return [items[int(index)] for index in np.linspace(0, len(items) - 1, count)]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))
