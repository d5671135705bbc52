"""One process that trains the generator: its steps, what it shares with other processes, and its state."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.anchored_config import AnchoredConfig
from galatea.eg3d.checkpoint import load_generator
from galatea.eg3d.head_cast import HeadCast
from galatea.eg3d.view_planes import SurfaceTables
from galatea.inversion.open_maps import open_texture
from training.adversary import Adversary
from training.appearance import start_appearance
from training.head_images import HeadImages, PatchSampling
from training.losses import KnownHeads, as_patches, picture_losses, weighted_sum
from training.reflectance import HeadReflectance
from training.training_config import TrainingConfig
from training.training_state import TrainingState, read_checkpoint, write_checkpoint

logger = logging.getLogger(__name__)
POOL_SIZE = 48
"""Heads that looks are put on in steps without pictures."""


class Trainer:
    """Holds generator, averaged weights and optimizer; a checkpoint is these, the clock and the counters."""

    def __init__(self, config: TrainingConfig, model_config: AnchoredConfig, data: HeadImages, out: Path) -> None:
        self.config, self.data, self.out = config, data, out
        torch.manual_seed(config.seed)
        self.generator = AnchoredGenerator(model_config)
        self.generator.mapping_network.measure(torch.from_numpy(data.arrays["code"]))
        self.full_size = model_config.plane_size
        rates = {
            "map": config.map_learning_rate,
            "code": config.code_learning_rate,
            "convolution": config.convolution_learning_rate,
            "": config.learning_rate,
        }
        named = list(self.generator.named_parameters())
        self.groups = [([p for n, p in named if _kind(n) == kind], rate) for kind, rate in rates.items()]
        self.optimizer = torch.optim.Adam([{"params": p, "lr": lr} for p, lr in self.groups], betas=(0.9, 0.99))
        self.average = {name: value.clone() for name, value in self.generator.state_dict().items()}
        self.steps, self.images, self.seconds = 0, 0, 0.0
        self.known: KnownHeads | None = None
        self.pool: HeadCast | None = None
        self.rng = np.random.default_rng([config.seed, 0])
        self.device = torch.device(config.device)
        self.open_texels = open_texture(self.generator.mesh, model_config.texture_size)
        self.noise = torch.Generator(self.device).manual_seed(config.seed + 1)
        self.adversary: Adversary | None = None
        if config.adversarial_weight:
            penalty = config.r1_weight, config.r1_every
            self.adversary = Adversary(config.discriminator_rate, *penalty, self.device)

    @property
    def progress(self) -> float:
        """Share of the training time that is over."""
        return min(1.0, self.seconds / (60 * self.config.minutes))

    def set_plane_size(self) -> None:
        """Planes are half as large in the first part of the training."""
        size = self.full_size // 2 if self.progress < self.config.coarse_share else self.full_size
        self.generator.use_plane_size(size)

    def start(self, assets: Path, weights: Path | None = None) -> None:
        """Load the checkpoint; or else start from a generator's weights, or from what is known without pictures."""
        self.know(assets)
        if not self.load():
            if weights is None:
                self._start(assets)
            else:
                self.generator.load_state_dict(load_generator(weights).state_dict())
            self.average = {name: value.clone() for name, value in self.generator.state_dict().items()}
        self.move()

    def _start(self, assets: Path) -> None:
        reflectance = HeadReflectance(self.generator.mesh, assets, self.generator.config.texture_size, self.data.fields)
        index = np.linspace(0, len(self.data) - 1, 256).astype(int)
        losses = start_appearance(self.generator, reflectance, self.data.rows("code", index), 800)
        logger.info("appearance starts with a loss of %.5f (from %.5f)", losses[-1], losses[0])

    def move(self) -> None:
        """Go to the device that training is done on; what is known without pictures is prepared on the CPU before."""
        self.generator.to(self.device)
        self.average = {name: value.to(self.device) for name, value in self.average.items()}
        for values in self.optimizer.state.values():
            values |= {n: v.to(self.device) for n, v in values.items() if n != "step"}

    def know(self, assets: Path) -> None:
        """Prepare the losses on what is known without pictures."""
        self.known = KnownHeads(self.generator, assets, self.data, self.noise)

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
        is_rendered = self.known is None or self.steps % self.config.render_every == 0
        losses = self._rendered_step(sampling) if is_rendered else self._known_step()
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()  # type: ignore[no-untyped-call]
        self._hold_mouths()
        self.optimizer.step()
        self._update_average()
        self.steps += 1
        self.images += self.config.heads * self.config.views * is_rendered
        self.seconds += time.monotonic() - started
        return {name: float(value.detach()) for name, value in losses.items()} if is_rendered else {}

    def _hold_mouths(self) -> None:
        """Keep the colours inside mouths as they started: the few pixels that show them show lips, too."""
        for maps in (self.generator.texture.mean, self.generator.texture.basis):
            if maps.grad is not None:
                maps.grad.mul_(self.open_texels.to(maps.grad))

    def _rendered_step(self, sampling: PatchSampling) -> dict[str, Tensor]:
        """Return the losses of patches, and of what is known of their heads."""
        self.set_plane_size()
        states = self.rng.choice(self.data.num_states, self.config.heads, replace=False)
        stride = int(self.rng.choice(sampling.strides, p=sampling.probabilities))
        batch = self.data.patches(states, self.config.views, stride, sampling, self.rng).to(self.device)
        cast = self.data.cast(self.generator, states)
        codes = self.data.rows("code", self.data.first[states]).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            ws = self.generator.mapping(codes)
            painted = self.generator.paint(ws)
            tables = SurfaceTables.of(self.generator.view_planes(painted, cast, ws[:, -1]))
            values, alpha, _ = self.generator.ray_caster(tables).render(batch.rays, self.noise)
            known = self._known_losses(tables, (painted.reflectance, codes, cast))
        detail = (self.data.detail, self.config.detail_weight)
        terms = picture_losses(values.float(), alpha.float(), batch, detail) | known
        if self.adversary is not None and self.progress >= self.config.adversarial_from:
            fake = as_patches(torch.cat([values[..., :3], alpha], -1).float())
            self.adversary.learn(fake, batch)
            terms["adversarial"] = self.adversary.generator_loss(fake, batch)
        return weighted_sum(terms, self.config)

    def _known_step(self) -> dict[str, Tensor]:
        """Return the losses of what is known without pictures, on more heads and with small planes.

        Looks are put on heads of a small pool, whose casts are kept.
        """
        self.generator.use_plane_size(self.full_size // 4)
        if self.pool is None:
            chosen = self.rng.choice(self.data.num_states, min(POOL_SIZE, self.data.num_states), replace=False)
            self.pool = self.data.cast(self.generator, chosen)
        count = 2 * self.config.heads
        cast = self.pool.select(torch.from_numpy(self.rng.choice(self.pool.batch_size, count)).to(self.device))
        codes = self.data.rows("code", self.rng.choice(len(self.data), count)).to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16):
            ws = self.generator.mapping(codes)
            painted = self.generator.paint(ws)
            tables = SurfaceTables.of(self.generator.view_planes(painted, cast, ws[:, -1]))
            known = self._known_losses(tables, (painted.reflectance, codes, cast))
            return weighted_sum(known, self.config)

    def _known_losses(self, tables: SurfaceTables, head: tuple[Tensor, Tensor, HeadCast]) -> dict[str, Tensor]:
        if self.known is None:
            return {}
        return self.known.losses(self.generator, tables, head, self.config.hair_points)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema_decay, (1 + self.steps) / (10 + self.steps))
        for name, value in self.generator.state_dict().items():
            self.average[name].lerp_(value, 1 - decay) if value.is_floating_point() else None

    def save(self) -> None:
        """Publish a checkpoint in one step."""
        counters = {"steps": self.steps, "images": self.images, "seconds": self.seconds}
        optimizer = self.optimizer.state_dict()["state"]
        adversary = {} if self.adversary is None else self.adversary.state()
        state = TrainingState(self.generator.state_dict(), self.average, optimizer, adversary, counters)
        write_checkpoint(self.out, state)

    def load(self) -> bool:
        """Go on from a checkpoint, if there is one."""
        state = read_checkpoint(self.out)
        if state is None:
            return False
        self.generator.load_state_dict(self.generator.state_dict() | state.model)
        self.average = state.average
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": state.optimizer})
        if self.adversary is not None:
            self.adversary.load(state.adversary)
        self.steps, self.images = int(state.counters["steps"]), int(state.counters["images"])
        self.seconds = float(state.counters["seconds"])
        self.rng = np.random.default_rng([self.config.seed, self.steps])
        return True

    def averaged(self) -> AnchoredGenerator:
        """Return a generator with the averaged weights, with planes of full size."""
        generator = AnchoredGenerator(replace(self.generator.config, plane_size=self.full_size))
        generator.load_state_dict(generator.state_dict() | self.average)
        return generator.eval().requires_grad_(False)


def _kind(name: str) -> str:
    """Return which learning rate a parameter has."""
    if name.endswith((".mean", ".basis", ".transfer")):
        return "map"
    if name.startswith("fusion.") and ".conv" in name:
        return "convolution"
    is_fitted = name.startswith(("mapping_network.", "light.", "clothes.", "tint.", "texture.coefficients."))
    return "code" if is_fitted else ""
