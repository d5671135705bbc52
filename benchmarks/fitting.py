"""Speed of the head fit, alone and in a batch; analytic derivatives against automatic ones.

Run `python -m benchmarks.fitting`; prints the rates and writes `benchmarks/results/fitting.json`. Processor time of one
thread is counted, so that other work on the machine disturbs little; the best of the repeats counts, sides take turns.
"""

from __future__ import annotations

import json
import platform
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
REPEATS = 5
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


def per_second(sides: dict[str, tuple[Callable[[], object], int]]) -> dict[str, float]:
    """Return the best rate of each side, given as what to run and how many things one run does."""
    best = dict.fromkeys(sides, 0.0)
    for _ in range(REPEATS):
        for name, (run, count) in sides.items():
            start = time.process_time()
            run()
            best[name] = max(best[name], count / (time.process_time() - start))
    return {name: round(rate, 1) for name, rate in best.items()}


def automatic_jacobian(energy: LandmarkEnergy, parameters: Tensor, rows: Tensor) -> Tensor:
    """Return the derivatives of all errors by forward-mode differentiation, as the fit would without formulas."""
    retract = energy.problem().retract

    def errors(step: Tensor, start: Tensor, row: Tensor) -> Tensor:
        moved = retract(start[None], step[None])
        return energy.errors(energy.place(moved, row[None])[1], row[None])[0]

    zero = torch.zeros(len(rows), parameters.shape[1] - 6)
    jacobian: Tensor = torch.vmap(torch.func.jacfwd(errors))(zero, parameters, rows)
    return jacobian


def main() -> None:
    """Measure both sides in one run."""
    torch.set_num_threads(1)
    fitter = HeadFitter(HeadModel.load())
    batch, one = heads(fitter, BATCH), heads(fitter, 1)
    model = fitter.model_for(batch)
    shape = model.identity_basis[..., : fitter.settings.num_identity]
    seen = Observation(observed_points(batch.points), model.mean[None], model.weight[None], None)
    energy = fitter.energy(model, seen, shape)
    parameters = torch.zeros(BATCH, 12 + energy.basis.shape[-1])
    parameters[:, [0, 4, 8, 11]] = torch.tensor([1.0, -1.0, -1.0, 2.7])
    rows = torch.arange(BATCH)
    sides = {
        "fits, in batches of 32": (lambda: fitter.fit(batch), BATCH),
        "fits, one by one": (lambda: fitter.fit(one), 1),
        "linearisations, analytic": (lambda: energy.linearise(parameters, rows), BATCH),
        "jacobians, forward mode": (lambda: automatic_jacobian(energy, parameters, rows), BATCH),
    }
    result = {
        "machine": {"device": platform.processor() or platform.machine(), "torch": torch.__version__},
        "unit": "per second of processor time, one thread",
        "counted": f"best of {REPEATS}, sides taking turns",
        "results": per_second(sides),
    }
    text = json.dumps(result, indent=1) + "\n"
    print(text, end="")
    RESULT.write_text(text)


if __name__ == "__main__":
    main()
