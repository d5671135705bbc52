"""Command: train the built-in generator on synthetic heads by reconstruction.

`python -m training.train_generator --data DIR --holdout DIR --assets DIR --out DIR --minutes 60`

Resumable: starting it again with the same --out goes on from the last checkpoint. The clock, not a number of steps,
ends it: the learning rate falls over the last 40% of the minutes.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from galatea.eg3d.anchored import AnchoredConfig, AnchoredGenerator, HeadCast
from galatea.eg3d.surface import SurfaceTables
from training.hair_volumes import HairVolumes
from training.head_images import PATCH, HeadImages, PatchBatch, PatchSampling
from training.reconstruction import evaluate, write_sheet
from training.reflectance import HeadReflectance, start_appearance

logger = logging.getLogger(__name__)
POOL_SIZE = 48
"""Heads that looks are put on in steps without pictures."""
SYNC_STEPS = 10
"""Steps between averagings of the weights where several processes train."""


@dataclass(frozen=True)
class TrainingConfig:
    """How the generator is trained.

    Attributes:
        minutes: training time.
        heads: head states a step.
        views: cameras of each.
        learning_rate: peak of Adam's, for what starts from noise.
        map_learning_rate: of the basis maps.
        code_learning_rate: of what starts fitted: mapping network, coefficients, light.
        ema_decay: of the averaged weights that are published.
        alpha_weight: weight of the opacity loss.
        edge_weight: weight of the loss on differences between neighbouring pixels.
        detail_weight: weight of eyes, mouth and brows (1 elsewhere).
        hair_weight: weight of the loss on density where hair is, and where it is not.
        reflectance_weight: weight of the loss on the texture of eyes and clothes.
        hair_points: points per head for the hair's density.
        render_every: every so many steps patches are rendered; the others are cheap, on what is known.
        coarse_share: part of the time with planes of half the size.
        seed: of everything random.
    """

    minutes: float = 60.0
    heads: int = 4
    views: int = 2
    learning_rate: float = 4e-3
    map_learning_rate: float = 1e-3
    code_learning_rate: float = 8e-4
    ema_decay: float = 0.998
    alpha_weight: float = 0.5
    edge_weight: float = 1.0
    detail_weight: float = 3.0
    hair_weight: float = 0.3
    reflectance_weight: float = 0.5
    hair_points: int = 1024
    render_every: int = 3
    coarse_share: float = 0.6
    seed: int = 0


class Trainer:
    """Holds generator, averaged weights and optimizer; a checkpoint is these, the clock and the counters."""

    def __init__(self, config: TrainingConfig, model_config: AnchoredConfig, data: HeadImages, out: Path) -> None:
        self.config, self.data, self.out = config, data, out
        torch.manual_seed(config.seed)
        self.generator = AnchoredGenerator(model_config)
        self.full_size = model_config.plane_size
        rates = {"map": config.map_learning_rate, "code": config.code_learning_rate, "": config.learning_rate}
        named = list(self.generator.named_parameters())
        self.groups = [([p for n, p in named if _kind(n) == kind], rate) for kind, rate in rates.items()]
        self.optimizer = torch.optim.Adam([{"params": p, "lr": lr} for p, lr in self.groups], betas=(0.9, 0.99))
        self.average = {name: value.clone() for name, value in self.generator.state_dict().items()}
        self.steps, self.images, self.seconds = 0, 0, 0.0
        self.hair: HairVolumes | None = None
        self.pool: HeadCast | None = None
        self.reflectance: HeadReflectance | None = None
        self.rng = np.random.default_rng([config.seed, int(time.time())])
        self.noise = torch.Generator().manual_seed(config.seed + 1)

    @property
    def progress(self) -> float:
        """Share of the training time that is over."""
        return min(1.0, self.seconds / (60 * self.config.minutes))

    def set_plane_size(self) -> None:
        """Planes are half as large in the first part of the training."""
        size = self.full_size // 2 if self.progress < self.config.coarse_share else self.full_size
        self.generator.use_plane_size(size)

    def start(self, assets: Path) -> None:
        """Load the checkpoint, or start from what is known without pictures."""
        self.know(assets)
        if self.load():
            return
        reflectance = HeadReflectance(self.generator.mesh, assets, self.generator.config.texture_size, self.data.fields)
        index = np.linspace(0, len(self.data) - 1, 256).astype(int)
        losses = start_appearance(self.generator, reflectance, self.data.rows("code", index), 800)
        logger.info("appearance starts with a loss of %.5f (from %.5f)", losses[-1], losses[0])
        self.average = {name: value.clone() for name, value in self.generator.state_dict().items()}

    def know(self, assets: Path) -> None:
        """Prepare the losses on what is known without pictures."""
        self.hair = HairVolumes(self.generator, assets)
        self.reflectance = HeadReflectance(self.generator.mesh, assets, 64, self.data.fields)

    def agree(self, source: int | None = None) -> None:
        """Average weights and clock over the processes (local SGD, Stich 2019, arXiv 1805.09767), or take one's."""
        parameters = [p for group, _ in self.groups for p in group]
        flat = torch.cat([torch.tensor([self.seconds]), *(p.detach().flatten() for p in parameters)])
        if source is None:
            torch.distributed.all_reduce(flat)
            flat /= torch.distributed.get_world_size()
        else:
            torch.distributed.broadcast(flat, source)
        self.seconds, start = float(flat[0]), 1
        for parameter in parameters:
            parameter.data.copy_(flat[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()

    def step(self, sampling: PatchSampling) -> dict[str, float]:
        """Do one step; returns the losses."""
        started = time.monotonic()
        warm = min(1.0, (self.steps + 1) / 50)
        for group, (_, rate) in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = rate * warm * min(1.0, max(0.02, (1 - self.progress) / 0.4))
        is_rendered = self.hair is None or self.steps % self.config.render_every == 0
        losses = self._rendered_step(sampling) if is_rendered else self._known_step()
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self._update_average()
        self.steps += 1
        self.images += self.config.heads * self.config.views * is_rendered
        self.seconds += time.monotonic() - started
        return {name: float(value.detach()) for name, value in losses.items()} if is_rendered else {}

    def _rendered_step(self, sampling: PatchSampling) -> dict[str, Tensor]:
        """Return the losses of patches, and of what is known of their heads."""
        self.set_plane_size()
        states = self.rng.choice(self.data.num_states, self.config.heads, replace=False)
        stride = int(self.rng.choice(sampling.strides, p=sampling.probabilities))
        batch = self.data.patches(states, self.config.views, stride, sampling, self.rng)
        cast = self.data.cast(self.generator, states)
        codes = self.data.rows("code", self.data.first[states])
        with torch.autocast("cpu", torch.bfloat16):
            ws = self.generator.mapping(codes)
            painted = self.generator.paint(ws)
            tables = SurfaceTables.of(self.generator.view_planes(painted, cast, ws[:, -1]))
            values, alpha, _ = self.generator.render_rays(tables, batch.rays, self.noise)
            known = self.known_losses(painted[0], codes, cast, tables)
        return self.losses(values.float(), alpha.float(), batch, known)

    def _known_step(self) -> dict[str, Tensor]:
        """Return the losses of what is known without pictures, on more heads and with small planes.

        Looks are put on heads of a small pool, whose casts are kept.
        """
        self.generator.use_plane_size(self.full_size // 4)
        if self.pool is None:
            chosen = self.rng.choice(self.data.num_states, min(POOL_SIZE, self.data.num_states), replace=False)
            self.pool = self.data.cast(self.generator, chosen)
        count = 2 * self.config.heads
        cast = self.pool.select(torch.from_numpy(self.rng.choice(self.pool.batch_size, count)))
        codes = self.data.rows("code", self.rng.choice(len(self.data), count))
        with torch.autocast("cpu", torch.bfloat16):
            ws = self.generator.mapping(codes)
            painted = self.generator.paint(ws)
            tables = SurfaceTables.of(self.generator.view_planes(painted, cast, ws[:, -1]))
            return self._weighted(self.known_losses(painted[0], codes, cast, tables))

    def known_losses(
        self, reflectance: Tensor, codes: Tensor, cast: HeadCast, tables: SurfaceTables
    ) -> dict[str, Tensor]:
        """Return losses on what is known without pictures: where hair is, what eyes and clothes look like."""
        if self.hair is None or self.reflectance is None:
            return {}
        style, colour = (codes[:, slice(*self.data.fields[name])] for name in ("hair_style", "hair_color"))
        points = self.hair.sample(self.generator, cast, style.argmax(1), self.config.hair_points, self.noise)
        hair, hair_colour = self.hair.loss(self.generator, tables, points, colour)
        found = F.avg_pool2d(reflectance, reflectance.shape[-1] // self.reflectance.size)
        wanted = torch.stack([self.reflectance.atlas(code) for code in codes])
        mask = self.reflectance.is_certain
        return {
            "hair": hair,
            "hair_colour": hair_colour,
            "reflectance": ((found - wanted).abs() * mask).sum() / (3 * len(codes) * mask.sum()),
        }

    def losses(self, values: Tensor, alpha: Tensor, batch: PatchBatch, known: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the loss terms and their weighted sum."""
        config = self.config
        colour = _as_patches(values[..., :3])
        opacity = _as_patches(alpha)
        weight = torch.isin(batch.part, torch.tensor(self.data.detail))[:, None].float()
        weight = 1 + (config.detail_weight - 1) * F.max_pool2d(weight, 3, 1, 1)
        weight = weight / weight.mean()
        error = (colour - batch.colour).abs()
        terms = {
            "colour": (weight * (error + 2 * error.square())).mean(),
            "alpha": (opacity - batch.alpha).abs().mean() + (opacity - batch.alpha).square().mean(),
            "edge": _edge_error(colour, batch.colour, weight),
            **known,
        }
        return self._weighted(terms)

    def _weighted(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the weighted sum."""
        config = self.config
        factors = {
            "colour": 1.0,
            "alpha": config.alpha_weight,
            "edge": config.edge_weight,
            "hair": config.hair_weight,
            "hair_colour": 0.5 * config.hair_weight,
            "reflectance": config.reflectance_weight,
        }
        terms["total"] = torch.stack([factors[name] * value for name, value in terms.items()]).sum()
        return terms

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.generator.state_dict().items():
            self.average[name].lerp_(value, 1 - decay) if value.is_floating_point() else None

    def save(self) -> None:
        """Publish a checkpoint in one step."""
        tensors = {f"model.{n}": v for n, v in self.generator.state_dict().items()}
        tensors |= {f"average.{n}": v for n, v in self.average.items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"adam.{index}.{n}": v for n, v in state.items()}
        facts = {"steps": self.steps, "images": self.images, "seconds": self.seconds}
        path = self.out / "checkpoint.safetensors"
        save_file(
            {n: v.contiguous() for n, v in tensors.items()}, path.with_suffix(".partial"), {"facts": json.dumps(facts)}
        )
        path.with_suffix(".partial").replace(path)

    def load(self) -> bool:
        """Go on from a checkpoint, if there is one."""
        path = self.out / "checkpoint.safetensors"
        if not path.exists():
            return False
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
            facts = json.loads(file.metadata()["facts"])
        saved = {name[6:]: value for name, value in tensors.items() if name.startswith("model.")}
        self.generator.load_state_dict(self.generator.state_dict() | saved)
        self.average = {n[8:]: v for n, v in tensors.items() if n.startswith("average.")}
        state = self.optimizer.state_dict()
        state["state"] = {}
        for name, value in tensors.items():
            if name.startswith("adam."):
                _, index, key = name.split(".")
                state["state"].setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(state)
        self.steps, self.images, self.seconds = facts["steps"], facts["images"], facts["seconds"]
        return True

    def averaged(self) -> AnchoredGenerator:
        """Return a generator with the averaged weights, with planes of full size."""
        generator = AnchoredGenerator(replace(self.generator.config, plane_size=self.full_size))
        generator.load_state_dict(generator.state_dict() | self.average)
        return generator.eval().requires_grad_(False)


def _kind(name: str) -> str:
    """Return which learning rate a parameter has."""
    if name.endswith((".mean", ".basis")):
        return "map"
    return "code" if name.startswith(("mapping_network.", "light.", "texture.coefficients.")) else ""


def _as_patches(values: Float[Tensor, "heads rays channels"]) -> Float[Tensor, "heads_views channels patch patch"]:
    return values.reshape(-1, PATCH, PATCH, values.shape[-1]).permute(0, 3, 1, 2)


def _edge_error(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Return the mean weighted error of differences between neighbours along both axes."""
    across = (torch.diff(found, dim=3) - torch.diff(wanted, dim=3)).abs() * weight[..., 1:]
    down = (torch.diff(found, dim=2) - torch.diff(wanted, dim=2)).abs() * weight[:, :, 1:]
    return across.mean() + down.mean()


def train(rank: int, config: TrainingConfig, options: argparse.Namespace) -> None:
    """Train until the time is up; the first process logs to `out/log.csv` and writes sheets to `out/sheet-*.png`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if options.workers > 1:
        meeting = options.out / f"meeting-{options.started}"
        torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=options.workers)
    data = HeadImages(options.data)
    fields = tuple((name, stop - start) for name, (start, stop) in data.fields.items())
    trainer = Trainer(replace(config, seed=config.seed + rank), AnchoredConfig(code_fields=fields), data, options.out)
    if rank == 0:
        trainer.start(options.assets)
    else:
        trainer.know(options.assets)
    if options.workers > 1:
        trainer.agree(source=0)
    monitor = _Monitor(trainer, options) if rank == 0 else None
    while trainer.progress < 1:
        terms = trainer.step(PatchSampling())
        if options.workers > 1 and trainer.steps % SYNC_STEPS == 0:
            trainer.agree()
        if trainer.steps % 100 == 0:
            data.refresh()
        if monitor is not None:
            monitor.after(terms)
    if monitor is not None:
        monitor.report()


class _Monitor:
    """Writes the log, checkpoints, held-out figures and sheets."""

    def __init__(self, trainer: Trainer, options: argparse.Namespace) -> None:
        self.trainer, self.out, self.every = trainer, options.out, options.every
        self.workers = options.workers
        self.holdout = HeadImages(options.holdout, limit=256)
        self.sums: dict[str, float] = {}
        self.rendered = 0
        self.logged, self.reported = time.monotonic(), trainer.seconds

    def after(self, terms: dict[str, float]) -> None:
        """Take note of a step's losses."""
        trainer = self.trainer
        for name, value in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.rendered += bool(terms)
        if trainer.steps % 60 == 0 and self.rendered:
            images = self.rendered * trainer.config.heads * trainer.config.views * self.workers
            row = {"minutes": trainer.seconds / 60, "steps": trainer.steps, "images": trainer.images * self.workers}
            row |= {"per_second": images / (time.monotonic() - self.logged), "data": len(trainer.data)}
            row |= {name: value / self.rendered for name, value in self.sums.items()}
            _append(self.out / "log.csv", row)
            logger.info(" ".join(f"{k}={v:.4g}" for k, v in row.items()))
            self.sums, self.rendered, self.logged = {}, 0, time.monotonic()
        if trainer.seconds - self.reported > 60 * self.every:
            self.report()

    def report(self) -> None:
        """Write a checkpoint, held-out figures and a sheet."""
        started = time.monotonic()
        trainer = self.trainer
        trainer.save()
        generator = trainer.averaged()
        sheet = write_sheet(generator, self.holdout, self.out / f"sheet-{trainer.steps:06d}.png")
        row = {"minutes": trainer.seconds / 60, "images": trainer.images * self.workers}
        row |= evaluate(generator, self.holdout, num_images=8)
        _append(self.out / "holdout.csv", row)
        logger.info("holdout: %s; %s", " ".join(f"{k}={v:.4g}" for k, v in row.items()), sheet)
        self.reported = trainer.seconds
        self.logged += time.monotonic() - started


def _append(path: Path, row: dict[str, float]) -> None:
    is_new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if is_new:
            writer.writeheader()
        writer.writerow({name: f"{value:.5g}" for name, value in row.items()})


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and train; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description="Train the built-in generator.")
    parser.add_argument("--data", type=Path, required=True, help="folder of training shards")
    parser.add_argument("--holdout", type=Path, required=True, help="folder of shards with other people")
    parser.add_argument("--assets", type=Path, required=True, help="MakeHuman's system assets folder (CC0)")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints, log and sheets")
    parser.add_argument("--minutes", type=float, default=60.0, help="training time, all starts together")
    parser.add_argument("--every", type=float, default=5.0, help="minutes between checkpoints and sheets")
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each, weights averaged")
    options = parser.parse_args(arguments)
    options.out.mkdir(parents=True, exist_ok=True)
    options.started = int(time.time())
    config = TrainingConfig(minutes=options.minutes)
    (options.out / "config.json").write_text(json.dumps(asdict(config)))
    if options.workers > 1:
        spawn(train, (config, options), options.workers)  # type: ignore[no-untyped-call]
    else:
        train(0, config, options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
