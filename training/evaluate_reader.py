"""Measures the reader of faces against what it has to reach, prints every figure, and writes pictures.

`python -m training.evaluate_reader --renders DIR --photos DIR --driving DIR --out DIR`

Renders are held-out heads of `training.heads.render`. Beside the reader stands what the landmarks of FaceMesh and a
head fit give for the same pictures. Writes `figures.json`, `renders.jpg`, `photo.jpg`, `photos.jpg`.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galatea.cameras import view_angles
from galatea.faces.packs import FacePack
from galatea.faces.reader import FaceReader
from galatea.faces.reading import FaceReading
from galatea.images import to_tensor, to_uint8
from galatea.morphable.fitting import HeadFit, HeadFitter
from galatea.morphable.head import HeadModel
from training.reader import evaluate_photos as photos
from training.reader import evaluate_renders as renders
from training.reader.drawing import rendered_head, save, sheet, with_landmarks

INFINITY = float("inf")


@dataclass(frozen=True)
class Threshold:
    """A figure must lie within these bounds."""

    low: float = -INFINITY
    high: float = INFINITY

    def __str__(self) -> str:
        """Return the bounds as people write them."""
        if self.low == -INFINITY:
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if self.high == INFINITY else f"{self.low:g}..{self.high:g}"


RENDER_THRESHOLDS = {
    "landmark_error_mean": Threshold(high=0.02),
    "yaw_error_deg": Threshold(high=2.0),
    "pitch_error_deg": Threshold(high=2.0),
    "gaze_error_deg": Threshold(high=5.0),
    **{f"{group}_correlation": Threshold(low=0.9) for group in renders.GROUPS},
    **{f"{group}_slope": Threshold(0.85, 1.15) for group in renders.GROUPS},
}
PHOTO_THRESHOLDS = {
    "closed_eyes_blink_min": Threshold(low=0.6),
    "open_eyes_blink_max": Threshold(high=0.4),
    "wide_mouth_jaw_open_min": Threshold(low=0.6),
    "shut_mouth_jaw_open_max": Threshold(high=0.15),
    "smile_min": Threshold(low=0.4),
    "serious_smile_max": Threshold(high=0.2),
    "mirror_expression_max": Threshold(high=0.1),
    "mirror_angle_max_deg": Threshold(high=3.0),
    "jitter": Threshold(high=0.003),
    "facemesh_agreement": Threshold(high=0.04),
    "milliseconds_per_face": Threshold(high=20.0),
    "gradient_error": Threshold(high=0.02),
}


def angles_of(fit: HeadFit) -> Tensor:
    """Return yaw, pitch and roll of fits."""
    angles = view_angles(fit.camera)
    return torch.stack([angles.yaw_deg, angles.pitch_deg, angles.roll_deg], 1)


def fit_figures(fit: HeadFit, truth: renders.Renders) -> dict[str, float]:
    """Return pose and action figures of head fits."""
    wide = truth.angles_deg[:, 0].abs() <= 45
    return {
        **renders.pose_figures(angles_of(fit), truth.angles_deg, wide),
        **renders.action_figures(fit.expression, truth.expression),
        "residual_median": float(fit.residual.median()),
        "converged": float(fit.is_converged.float().mean()),
    }


def on_renders(reader: FaceReader, folder: Path, out: Path, limit: int | None) -> dict[str, dict[str, float]]:
    """Measure renders: the reader, the head fit of its landmarks, and FaceMesh with its fit."""
    model = HeadModel.load()
    fitter, truth = HeadFitter(model), renders.load_renders(folder, model, limit)
    reading = renders.read_all(reader, truth.crops)
    fit = fitter.fit(reading.landmarks())
    before, points = renders.facemesh_fit(truth.crops, fitter)
    near = truth.angles_deg[:, 0].abs() <= 30
    error = (points - truth.points).norm(dim=-1) / truth.pupil_distance[:, None]
    draw(
        list(to_uint8(truth.crops[::37][:12])),
        _rows(reading, slice(None, None, 37)),
        model,
        fitter,
        out / "renders.jpg",
    )
    return {
        "reader": renders.measure(reading, truth),
        "reader_and_fit": fit_figures(fit, truth),
        "facemesh_and_fit": {"landmark_error_mean": float(error[near].mean()), **fit_figures(before, truth)},
    }


def on_photos(reader: FaceReader, folder: Path, driving: Path | None, out: Path) -> dict[str, dict[str, float]]:
    """Measure real photos."""
    pack, model = FacePack(use_reader=False), HeadModel.load()
    fitter, portraits = HeadFitter(model), photos.load_portraits(folder, driving, FacePack(use_reader=False))
    crops = portraits.crops
    with torch.no_grad():
        reading = reader.read(crops)
        facemesh = pack.landmarks(crops)
    fit, before = fitter.fit(reading.landmarks()), fitter.fit(facemesh)
    draw(list(portraits.images), reading, model, fitter, out / "photos.jpg", portraits.names)
    angles = angles_of(fit) - reading.angles_deg()
    return {
        "reader": {
            **photos.said_figures(portraits, reading.expression),
            **photos.mirror_figures(reader, crops, reading),
            "jitter": photos.jitter(reader, crops[0]),
            "facemesh_agreement": photos.agreement(reading.points, facemesh.points),
            "milliseconds_per_face": photos.milliseconds(reader, crops),
            "gradient_error": photos.gradient_error(reader, crops[0]),
            "confidence_min": float(reading.confidence.min()),
            "fit_angle_difference_deg": float(angles[:, :2].abs().mean()),
        },
        "reader_and_fit": {
            **photos.said_figures(portraits, fit.expression),
            "residual_median": float(fit.residual.median()),
        },
        "facemesh_and_fit": {
            **photos.said_figures(portraits, before.expression),
            "residual_median": float(before.residual.median()),
        },
    }


def _rows(reading: FaceReading, rows: slice) -> FaceReading:
    return FaceReading(*(getattr(reading, name)[rows] for name in FaceReading.__dataclass_fields__))


def draw(
    images: list[np.ndarray],
    reading: FaceReading,
    model: HeadModel,
    fitter: HeadFitter,
    path: Path,
    names: tuple[str, ...] = (),
) -> None:
    """Write a sheet: each face with its landmarks, the fitted head beside it."""
    fit = fitter.fit(reading.landmarks())
    tiles = []
    for row, image in enumerate(images):
        tiles += [with_landmarks(image, reading, row, names[row] if names else ""), rendered_head(model, fit, row)]
    save(sheet(tiles, 8), str(path))


def on_one_photo(reader: FaceReader, out: Path) -> None:
    """Draw what is read of one public-domain photo (astronaut Eileen Collins, NASA) as it gets worse."""
    model = HeadModel.load()
    fitter, image = HeadFitter(model), photos.astronaut_crop()
    changed = photos.worse_pictures(image)
    with torch.no_grad():
        reading = reader.read(to_tensor(list(changed.values())))
    draw(list(changed.values()), reading, model, fitter, out / "photo.jpg", tuple(changed))


def report(title: str, figures: dict[str, dict[str, float]], thresholds: dict[str, Threshold]) -> int:
    """Print the figures with their thresholds; returns how many were missed."""
    print(f"\n{title:36} {'reader':>9} {'with fit':>9} {'FaceMesh':>9}  threshold")
    missed = 0
    for name in dict.fromkeys([*thresholds, *(key for part in figures.values() for key in part)]):
        values = [figures[part].get(name) for part in ("reader", "reader_and_fit", "facemesh_and_fit")]
        shown = " ".join(f"{'' if value is None else format(value, '.4f'):>9}" for value in values)
        verdict = ""
        if name in thresholds and values[0] is not None:
            is_met = thresholds[name].low <= values[0] <= thresholds[name].high
            missed += not is_met
            verdict = f"  {thresholds[name]}  {'met' if is_met else 'MISSED'}"
        print(f"{name:36} {shown}{verdict}")
    return missed


def main() -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=Path, required=True, help="held-out shards of training.heads.render")
    parser.add_argument("--photos", type=Path, help="folder of photos (JPEG)")
    parser.add_argument("--driving", type=Path, help="folder of driving videos")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="so many renders only")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    reader = FaceReader.load()
    figures = {"renders": on_renders(reader, args.renders, args.out, args.limit)}
    on_one_photo(reader, args.out)
    missed = report("held-out renders", figures["renders"], RENDER_THRESHOLDS)
    if args.photos is not None:
        figures["photos"] = on_photos(reader, args.photos, args.driving, args.out)
        missed += report("real photos", figures["photos"], PHOTO_THRESHOLDS)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(f"\n{missed} thresholds missed; figures and pictures are in {args.out}")


if __name__ == "__main__":
    main()
