"""One card for each portrait: source, reconstruction, turned views, moving clips, edits, and how well it went."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.aggregates import RunTables
from pipeline.manifest import DONE
from pipeline.report.pictures import Budget, Picture, moving, still, strip

NO_EDIT = "none"
_MAX_CLIPS, _MAX_EDITS = 12, 12
_CLIP_SHARE = 0.8
"""Share of the page's budget that clips may use."""

Row = Mapping[str, Any]


class RunSource(RunTables, Protocol):
    """What the report reads of a run."""

    def rows(self, stage: str, positions: Iterable[int]) -> list[Row]:
        """The rows at these positions of a stage's manifest without their pictures and tensors."""

    def models(self, stage: str) -> list[str]:
        """The distinct lists of models, as JSON, of the rows of a stage."""

    def pictures(self, stage: str, positions: Sequence[int], columns: Sequence[str]) -> list[Row]:
        """Heavy columns of the rows at these positions; columns of files hold their bytes."""


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
    portraits = _where(pc.equal(source.table("align", ["status"])["status"], DONE))
    positions = _evenly(portraits, max_portraits)
    shown = list(zip(positions, source.rows("align", positions), strict=True))
    ids = {str(row["portrait_id"]) for _, row in shown}
    index = _Index(
        inversions=by_portrait(source, "invert", "portrait_id", ids),
        edits=by_portrait(source, "edit", "edit_id", ids),
        clips=by_portrait(source, "animate", "clip_id", ids),
        scores=_scores_of(source, ids),
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


def by_portrait(
    source: RunSource, stage: str, id_column: str, ids: Collection[str]
) -> Mapping[str, list[tuple[int, Row]]]:
    """The finished rows of a stage that belong to these portraits, with their positions in its manifest."""
    table = source.table(stage, [id_column, "status"])
    portraits = pc.list_element(pc.split_pattern(table[id_column].cast(pa.string()), ".", max_splits=1), 0)
    positions = _where(pc.and_(pc.equal(table["status"], DONE), _is_among(portraits, ids)))
    found: defaultdict[str, list[tuple[int, Row]]] = defaultdict(list)
    for position, row in zip(positions, source.rows(stage, positions), strict=True):
        found[str(row[id_column]).split(".", 1)[0]].append((position, row))
    return found


def _is_among(values: pa.ChunkedArray, ids: Collection[str]) -> pa.ChunkedArray:
    return pc.is_in(values.cast(pa.string()), value_set=pa.array(sorted(ids), pa.string()))


def _where(is_wanted: pa.ChunkedArray) -> list[int]:
    return [int(position) for position in np.flatnonzero(is_wanted)]


def _scores_of(source: RunSource, ids: Collection[str]) -> Mapping[str, Row]:
    subjects = source.table("evaluate", ["subject_id"])["subject_id"]
    rows = source.rows("evaluate", _where(_is_among(subjects, ids)))
    return {str(row["subject_id"]): row for row in rows}


def _edit_of(clip_id: str) -> str:
    """`<portrait>.<edit>.<driver>`: see the ids of the stages edit and animate."""
    return clip_id.split(".", 2)[1]


def _driver_of(clip_id: str) -> str:
    return clip_id.split(".", 2)[2]


def _evenly(positions: list[int], count: int) -> list[int]:
    if len(positions) <= count:
        return positions
    return [positions[int(index)] for index in np.linspace(0, len(positions) - 1, count)]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and bool(np.isfinite(value))
