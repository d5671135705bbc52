"""Speed of the head fit, alone and in a batch; analytic derivatives against automatic ones.

Run `python -m benchmarks.fitting`; prints the rates and writes `benchmarks/results/fitting.json`.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from galatea.cameras import orbit, project
from galatea.morphable.fitting import LEFT_IRIS, RIGHT_IRIS, HeadFitter, Observation, observed_points
from galatea.morphable.head import HeadModel
from galatea.morphable.landmark_energy import LandmarkEnergy

BATCH = 32
RESULT = Path(__file__).parent / "results" / "fitting.json"


@dataclass(frozen=True)
class Seen:
    """Landmarks of a batch of heads."""

    points: Tensor


def heads(fitter: HeadFitter, count: int) -> Seen:
    """Draw heads with expressions and cameras, and project their landmarks with noise of half a percent."""
    generator = torch.Generator().manual_seed(0)
    model = fitter.model_for(Seen(torch.zeros(0, 478, 2)))
    identity = 0.8 * torch.randn(count, model.num_identity, generator=generator)
    expression = torch.rand(count, 52, generator=generator) ** 4
    camera = orbit(*(15 * torch.randn(count, generator=generator) for _ in range(3)))
    image, _ = project(model.points(identity, expression), camera)
    points = torch.zeros(count, 478, 2)
    points[:, :468], points[:, RIGHT_IRIS], points[:, LEFT_IRIS] = image[:, :468], image[:, 468], image[:, 469]
    return Seen(points + 0.002 * torch.randn(points.shape, generator=generator))


def per_second(run: Callable[[], object], count: int, repeats: int = 5) -> float:
    """Return the best rate of some repeats."""
    best = 0.0
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        best = max(best, count / (time.perf_counter() - start))
    return round(best, 1)


def automatic_jacobian(energy: LandmarkEnergy, parameters: Tensor, rows: Tensor) -> Tensor:
    """Return the derivatives of all errors by forward-mode differentiation, as the fit would without formulas."""
    retract = energy.problem().retract

    def errors(step: Tensor, row: Tensor) -> Tensor:
        moved = retract(parameters[row][None], step[None])
        return energy.errors(energy.place(moved, row[None])[1], row[None])[0]

    zero = torch.zeros(len(rows), parameters.shape[1] - 6)
    jacobian: Tensor = torch.vmap(torch.func.jacfwd(errors))(zero, rows)
    return jacobian


def main() -> None:
    """Measure both sides in one run."""
    fitter = HeadFitter(HeadModel.load())
    batch, one = heads(fitter, BATCH), heads(fitter, 1)
    model = fitter.model_for(batch)
    shape = model.identity_basis[..., : fitter.settings.num_identity]
    seen = Observation(observed_points(batch.points), model.mean[None], model.weight[None], None)
    energy = fitter.energy(model, seen, shape)
    parameters = torch.zeros(BATCH, 12 + energy.basis.shape[-1])
    parameters[:, [0, 4, 8, 11]] = torch.tensor([1.0, -1.0, -1.0, 2.7])
    rows = torch.arange(BATCH)
    result = {
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "fits_per_second_in_batches_of_32": per_second(lambda: fitter.fit(batch), BATCH),
        "fits_per_second_one_by_one": per_second(lambda: fitter.fit(one), 1),
        "linearisations_per_second_analytic": per_second(lambda: energy.linearise(parameters, rows), BATCH),
        "jacobians_per_second_forward_mode": per_second(lambda: automatic_jacobian(energy, parameters, rows), BATCH),
    }
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
