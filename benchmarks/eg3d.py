"""EG3D at its full FFHQ-512 configuration, random weights: a plain transcription of the formulas and `galatea.eg3d`.

`python -m benchmarks.eg3d [--repeats 2] [--device cpu] [--only TASK ...]`. Both sides run in one process, get the same
weights and inputs, and must give the same numbers. On a CPU the time is processor time of one thread, so that other
work on the machine disturbs little; the best of the repeats counts, sides take turns. With `--device cuda` it is wall
time between synchronisations. Figures are kept in `benchmarks/results/eg3d.json` (`eg3d_cuda.json`).
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import eg3d_plain as plain
from galatea.cameras import orbit
from galatea.eg3d.generator import TriPlaneGenerator
from galatea.eg3d.generator_config import GeneratorConfig
from galatea.eg3d.rays import camera_rays

RESULTS = Path(__file__).parent / "results"
SIDES = ("plain", "galatea")
LARGEST_ERROR = {"image": 1e-4, "gradient": 1e-3}
"""Relative L2 error that is allowed between the sides."""
STEP_RESOLUTION, FRAME_RESOLUTION = 64, 128
"""Rendering resolution of optimisation steps (as in the usual projectors) and of frames."""


@dataclass(frozen=True)
class Task:
    """Both sides of a measurement; each gives a tensor to compare."""

    plain: Callable[[], Tensor]
    galatea: Callable[[], Tensor]
    kind: str = "image"
    goal: float = 0.0


def main() -> None:
    """Measure, check that both sides agree, print a table, and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", help="names of tasks; the file of results is then left alone")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = make_tasks(torch.device(arguments.device))
    chosen = {name: task for name, task in tasks.items() if not arguments.only or name in arguments.only}
    rows = {}
    print(f"{'task':36} {'plain':>9} {'galatea':>9} {'faster':>7} {'error':>8}", flush=True)
    for name, task in chosen.items():
        row = rows[name] = compare(task, arguments.repeats, arguments.device)
        print(
            f"{name:36} {row['plain']:8.3f}s {row['galatea']:8.3f}s {row['faster']:6.2f}x {row['relative_error']:8.1e}",
            flush=True,
        )
    if not arguments.only:
        name = "eg3d.json" if arguments.device == "cpu" else "eg3d_cuda.json"
        (RESULTS / name).write_text(json.dumps({**conditions(arguments.device), "results": rows}, indent=1) + "\n")


def conditions(device: str) -> dict[str, object]:
    """Return what the figures were measured with."""
    is_cpu = device == "cpu"
    processor = platform.processor() or platform.machine()
    return {
        "machine": {"device": processor if is_cpu else torch.cuda.get_device_name(), "torch": torch.__version__},
        "configuration": "FFHQ 512 (256^2 x 96 planes, 48 + 48 samples, 8XDC), batch of 1, float32, random weights",
        "unit": "seconds of processor time, one thread" if is_cpu else "seconds",
        "counted": "best of repeats, sides taking turns",
    }


def make_tasks(device: torch.device) -> dict[str, Task]:
    """Return every measurement by name."""
    torch.manual_seed(0)
    generator = TriPlaneGenerator(GeneratorConfig()).eval().requires_grad_(False).to(device)
    for name, parameter in generator.named_parameters():
        if name.endswith(("bias", "noise_strength")):
            parameter.add_(0.1 * torch.randn_like(parameter))
    camera = orbit(torch.tensor([20.0]), torch.tensor([5.0])).to(device)
    z = torch.randn(1, generator.z_dim, device=device)
    with torch.no_grad():
        ws = generator.mapping(z, camera)
        planes = generator.planes(ws)
        features = torch.randn(1, 32, 128, 128, device=device).tanh()
    return (
        _parts(generator, planes, features, camera, ws)
        | _frames(generator, planes, camera, z)
        | _steps(generator, camera, ws)
    )


def _parts(
    generator: TriPlaneGenerator, planes: Tensor, features: Tensor, camera: Tensor, ws: Tensor
) -> dict[str, Task]:
    """Return the stages of a frame, one by one."""
    options, decoder = generator.config.rendering, generator.decoder

    def rendering(resolution: int) -> Task:
        rays = camera_rays(camera, resolution)
        return _quiet(
            lambda: plain.render(planes, decoder, rays, options)[0],
            lambda: generator.renderer(planes, decoder, rays, options).features,
            goal=2.0,
        )

    return {
        "tri-planes": _quiet(lambda: plain.planes(generator.backbone.synthesis, ws), lambda: generator.planes(ws)),
        "rendering, 64 x 64": rendering(64),
        "rendering, 128 x 128": rendering(128),
        "super-resolution": _quiet(
            lambda: plain.super_resolution(generator.superresolution, features[:, :3], features, ws),
            lambda: generator.superresolution(features[:, :3], features, ws),
        ),
    }


def _frames(generator: TriPlaneGenerator, planes: Tensor, camera: Tensor, z: Tensor) -> dict[str, Task]:
    """Return frames, from z and from planes that are there already."""
    size, backbone = FRAME_RESOLUTION, generator.backbone
    ws = generator.mapping(z, camera)

    def plain_frame() -> Tensor:
        codes = plain.mapping(backbone.mapping, z, camera)
        return plain.view(generator, plain.planes(backbone.synthesis, codes), camera, codes, size)

    return {
        "frame from cached planes": _quiet(
            lambda: plain.view(generator, planes, camera, ws, size),
            lambda: generator.render(planes, camera, ws, size).image,
        ),
        "whole frame": _quiet(plain_frame, lambda: generator(z, camera).image, goal=1.5),
    }


def _steps(generator: TriPlaneGenerator, camera: Tensor, ws: Tensor) -> dict[str, Task]:
    """Return steps of optimisation on an image: of `w_plus`, and of all weights with Adam."""
    target = torch.zeros(1, 3, generator.img_resolution, generator.img_resolution, device=ws.device)

    def plain_image(codes: Tensor) -> Tensor:
        planes = plain.planes(generator.backbone.synthesis, codes)
        return plain.view(generator, planes, camera, codes, STEP_RESOLUTION)

    def image(codes: Tensor) -> Tensor:
        return generator.render(generator.planes(codes), camera, codes, STEP_RESOLUTION).image

    def latent_step(make: Callable[[Tensor], Tensor]) -> Tensor:
        codes = ws.clone().requires_grad_()
        (gradient,) = torch.autograd.grad((make(codes) - target).square().mean(), codes)
        return gradient

    def tuning_step(make: Callable[[Tensor], Tensor]) -> Tensor:
        generator.requires_grad_(True)
        used = [p for n, p in generator.named_parameters() if not n.startswith("backbone.mapping.")]
        # A rate of zero: the step costs the same, and the weights stay for the other side.
        optimiser = torch.optim.Adam(used, lr=0.0)
        torch.autograd.backward((make(ws) - target).square().mean())
        optimiser.step()
        gradient = torch.cat([p.grad.flatten() for p in used if p.grad is not None])
        generator.zero_grad()
        generator.requires_grad_(False)
        return gradient

    return {
        "step of w": Task(lambda: latent_step(plain_image), lambda: latent_step(image), "gradient", goal=1.5),
        "tuning step": Task(lambda: tuning_step(plain_image), lambda: tuning_step(image), "gradient"),
    }


def _quiet(first: Callable[[], Tensor], second: Callable[[], Tensor], goal: float = 0.0) -> Task:
    """Return a task without gradients."""
    return Task(torch.no_grad()(first), torch.no_grad()(second), goal=goal)


def compare(task: Task, repeats: int, device: str) -> dict[str, float]:
    """Return the best time of each side, how much faster ours is, and how far the results are apart."""
    found = [task.plain(), task.galatea()]
    error = float((found[0] - found[1]).norm() / found[0].norm())
    del found
    if error > LARGEST_ERROR[task.kind]:
        raise SystemExit(f"the two sides differ by {error:.1e} (relative L2); nothing is measured")
    times: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side in SIDES:
            times[side].append(_seconds(getattr(task, side), device))
    best = {side: min(times[side]) for side in SIDES}
    row = {**best, "faster": best["plain"] / best["galatea"], "relative_error": error}
    return row | ({"goal": task.goal} if task.goal else {})


def _seconds(run: Callable[[], Tensor], device: str) -> float:
    """Return processor time on a CPU, wall time on another device."""
    if device == "cpu":
        start = time.process_time()
        run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
