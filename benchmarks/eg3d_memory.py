"""Peak memory of EG3D's volume rendering, each figure in a process of its own.

`python -m benchmarks.eg3d_memory` renders full-size planes (256^2 x 96) with 48 + 48 samples, without and with
gradients to planes and decoder, and keeps the figures in `benchmarks/results/eg3d_memory.json`.
`python -m benchmarks.eg3d_memory --measure RESOLUTION SAMPLES CHUNK GRADIENT` prints one figure as JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch

from galatea.cameras import orbit
from galatea.eg3d.ray_sampling import RenderingOptions
from galatea.eg3d.rays import camera_rays
from galatea.eg3d.renderer import VolumeRenderer
from galatea.eg3d.triplane import OSGDecoder

RESULTS = Path(__file__).parent / "results" / "eg3d_memory.json"
RUNS = {
    "512 x 512": (512, 48, 1024, "none"),
    "256 x 256 with gradients, recomputed": (256, 48, 2048, "recomputed"),
    "128 x 128 with gradients, kept": (128, 48, 1024, "kept"),
    "128 x 128 with gradients, recomputed": (128, 48, 1024, "recomputed"),
}
"""Rays a side, samples of each pass, rays at once, gradients ("none", "kept" or "recomputed")."""


def main() -> None:
    """Measure every run in a child process, print them, and keep the figures."""
    parser = argparse.ArgumentParser(description="Measure the peak memory of volume rendering, and keep the figures.")
    parser.add_argument("--measure", nargs=4, metavar=("RESOLUTION", "SAMPLES", "CHUNK", "GRADIENT"), help="one figure")
    chosen = parser.parse_args().measure
    if chosen:
        print(json.dumps(measure(*map(int, chosen[:3]), chosen[3])))
        return
    rows = {name: measure_in_child(*run) for name, run in RUNS.items()}
    RESULTS.write_text(json.dumps({"unit": "MiB, and seconds of processor time", "results": rows}, indent=1) + "\n")
    for name, row in rows.items():
        print(f"{name:40} peak {row['peak_mib']:6.0f} MiB, {row['before_mib']:4.0f} before; {row['seconds']:.0f} s")


def measure_in_child(resolution: int, samples: int, chunk: int, gradient: str) -> dict[str, float]:
    """Return the figures of a run from a fresh process."""
    arguments = [str(value) for value in (resolution, samples, chunk, gradient)]
    command = [sys.executable, "-m", "benchmarks.eg3d_memory", "--measure", *arguments]
    root = Path(__file__).parents[1]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root).stdout
    found: dict[str, float] = json.loads(printed)
    return found


def measure(resolution: int, samples: int, chunk: int, gradient: str) -> dict[str, float]:
    """Render, and return the peak of resident memory before and after, in MiB."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    planes, decoder = torch.randn(1, 3, 32, 256, 256), OSGDecoder()
    rays = camera_rays(orbit(torch.tensor([20.0]), torch.tensor([5.0])), resolution)
    options = RenderingOptions(samples, samples, max_rays_per_chunk=chunk, is_recomputed=gradient == "recomputed")
    before, start = peak_mib(), time.process_time()
    with torch.set_grad_enabled(gradient != "none"):
        rendered = VolumeRenderer()(planes.requires_grad_(gradient != "none"), decoder, rays, options)
    if gradient != "none":
        torch.autograd.backward(rendered.features.square().mean())
    return {"before_mib": before, "peak_mib": peak_mib(), "seconds": time.process_time() - start}


def peak_mib() -> float:
    """Return the largest resident size of this process so far (`getrusage` would count its parent before `exec`)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:"))) / 1024


if __name__ == "__main__":
    main()
