"""Volume rendering of EG3D at full plane size: a plain transcription of the formulas against `galatea.eg3d`.

`python -m benchmarks.eg3d [--resolution 64] [--repeats 3]`. Both sides run in one process, get the same planes and
decoder, and must give the same numbers. The time is processor time of one thread, so that other work on the machine
disturbs little; the best of the repeats counts, sides take turns.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import eg3d_plain
from galatea.cameras import orbit
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.renderer import RenderingOptions, VolumeRenderer
from galatea.eg3d.triplane import OSGDecoder, PlaneTable

RESULTS = Path(__file__).parent / "results" / "eg3d.json"
SIDES = ("plain", "galatea")
MAX_RELATIVE_ERROR = 1e-4


def main() -> None:
    """Measure, check that both sides agree, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    figures = {
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1},
        "resolution": arguments.resolution,
        "samples": "48 + 48",
        "unit": "seconds of processor time, best of repeats",
        "results": {name: _compare(pair, arguments.repeats) for name, pair in _tasks(arguments.resolution).items()},
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{'task':34} {'plain':>9} {'galatea':>9} {'faster':>7}")
    for name, row in figures["results"].items():
        print(f"{name:34} {row['plain']:8.3f}s {row['galatea']:8.3f}s {row['plain'] / row['galatea']:6.1f}x")


def _tasks(resolution: int) -> dict[str, tuple[Callable[[], Tensor], Callable[[], Tensor]]]:
    """Return both sides of every task; each gives a tensor to compare."""
    torch.manual_seed(0)
    planes, decoder, renderer, options = (
        torch.randn(1, 3, 32, 256, 256),
        OSGDecoder(),
        VolumeRenderer(),
        RenderingOptions(),
    )
    rays = camera_rays(orbit(torch.tensor([20.0]), torch.tensor([5.0])), resolution)
    depths = torch.linspace(options.ray_start, options.ray_end, 48)
    points = (rays.origins[:, :, None] + depths[:, None] * rays.directions[:, :, None]).flatten(1, 2)

    def step(render: Callable[[Tensor], Tensor]) -> Tensor:
        """Gradient with respect to the planes, as a step of `w` or of tuning needs it."""
        leaf = planes.clone().requires_grad_()
        render(leaf).square().mean().backward()
        return leaf.grad if leaf.grad is not None else leaf

    def plain(p: Tensor) -> Tensor:
        return eg3d_plain.render(p, decoder, rays, options)[0]

    def ours(p: Tensor) -> Tensor:
        return renderer(p, decoder, rays, options).features

    return {
        "read planes, 48 points a ray": (
            torch.no_grad()(lambda: eg3d_plain.read_planes(planes, points, 1.0)),
            torch.no_grad()(lambda: PlaneTable.from_planes(planes).sample(points, renderer.projection)),
        ),
        "render": (torch.no_grad()(lambda: plain(planes)), torch.no_grad()(lambda: ours(planes))),
        "render and gradient to the planes": (lambda: step(plain), lambda: step(ours)),
    }


def _compare(pair: tuple[Callable[[], Tensor], Callable[[], Tensor]], repeats: int) -> dict[str, float]:
    """Return the best time of each side and how far their results are apart."""
    found = [side() for side in pair]
    error = float((found[0] - found[1]).norm() / found[0].norm())
    if error > MAX_RELATIVE_ERROR:
        raise SystemExit(f"the two sides differ by {error:.1e} (relative L2); nothing is measured")
    best = {side: float("inf") for side in SIDES}
    for _ in range(repeats):
        for side, run in zip(SIDES, pair, strict=True):
            start = time.process_time()
            run()
            best[side] = min(best[side], time.process_time() - start)
    return {**best, "relative_error": error}


if __name__ == "__main__":
    main()
