"""Measures head fits on rendered heads that the correspondence was not made from: pose, expression, mirror images.

Run `python -m training.check_fitting ASSETS`; ASSETS is the folder of MakeHuman's system assets.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import view_angles
from galatea.morphable.actions import ACTION_INDEX
from galatea.morphable.correspondence import Correspondence, load_correspondence
from galatea.morphable.fitting import LEFT_IRIS, RIGHT_IRIS, HeadFit, HeadFitter
from galatea.morphable.head import HeadModel
from galatea.morphable.landmark_model import bake
from training.correspondence import Pictures, look

FIRST_SEED = 800_000
WATCHED = ("jawOpen", "mouthSmileLeft", "browInnerUp", "browDownLeft", "eyeBlinkLeft", "mouthPucker", "eyeLookInLeft")


@dataclass(frozen=True)
class Seen:
    """Landmarks in the detector's layout; rims of the irises, which the fit does not use, are left at zero."""

    points: Float[Tensor, "n 478 2"]


def measure(model: HeadModel, correspondence: Correspondence, pictures: Pictures) -> dict[str, float]:
    """Return errors of pose (degrees), of watched actions, and the disagreement of mirror images."""
    points = torch.zeros(len(pictures.observed), 478, 2)
    points[:, :468] = pictures.observed[:, :468]
    points[:, RIGHT_IRIS], points[:, LEFT_IRIS] = pictures.observed[:, 468], pictures.observed[:, 469]
    fit = HeadFitter(bake(model, correspondence)).fit(Seen(points))
    found, true = view_angles(fit.camera), view_angles(pictures.camera)
    result = {
        "faces": float(len(points)),
        "converged": float(fit.is_converged.float().mean()),
        "median_residual": float(fit.residual.median()),
        "yaw_slope": _slope(found.yaw_deg, true.yaw_deg),
        "yaw_error_deg": float((found.yaw_deg - true.yaw_deg).abs().mean()),
        "pitch_error_deg": float((found.pitch_deg - true.pitch_deg).abs().mean()),
        "roll_error_deg": float((found.roll_deg - true.roll_deg).abs().mean()),
    }
    for name in WATCHED:
        given, read = pictures.expression[:, ACTION_INDEX[name]], fit.expression[:, ACTION_INDEX[name]]
        result[f"{name}_slope"] = _slope(read, given)
        result[f"{name}_correlation"] = float(torch.corrcoef(torch.stack([given, read]))[0, 1])
    return {**result, **_mirrored(model, fit)}


def _mirrored(model: HeadModel, fit: HeadFit) -> dict[str, float]:
    """Compare each picture with its mirror image, which is in the second half of the batch."""
    half = len(fit.expression) // 2
    angles = view_angles(fit.camera)
    expression = fit.expression[half:, model.action_mirror] - fit.expression[:half]
    return {
        "mirror_yaw_difference_deg": float((angles.yaw_deg[:half] + angles.yaw_deg[half:]).abs().median()),
        "mirror_expression_difference": float(expression.abs().mean()),
    }


def _slope(found: Tensor, true: Tensor) -> float:
    """Return how much the found value changes when the true one changes by one."""
    centred = true - true.mean()
    return float((centred * (found - found.mean())).sum() / centred.square().sum())


def without_offset(correspondence: Correspondence) -> Correspondence:
    """Return the correspondence without its corrections, to show what they are worth."""
    plain = torch.zeros_like(correspondence.offset)
    return replace(correspondence, offset=plain, gain=torch.ones_like(correspondence.gain))


def main() -> None:
    """Render, fit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, help="folder of MakeHuman's system assets")
    parser.add_argument("--people", type=int, default=30)
    parser.add_argument("--expressions", type=int, default=4)
    args = parser.parse_args()
    model, built_in = HeadModel.load(), load_correspondence()
    with torch.no_grad():
        pictures = look(model, args.assets, range(FIRST_SEED, FIRST_SEED + args.people), args.expressions, "cpu")
        result = {
            "built-in": measure(model, built_in, pictures),
            "without offsets and gains": measure(model, without_offset(built_in), pictures),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
