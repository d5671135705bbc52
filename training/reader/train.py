"""Trains the reader's first look: `python -m training.reader.train --pictures DIR --out DIR --minutes 60`.

The learning rate follows the clock and ends at zero when the minutes are over, whatever the machine's speed. Goes on
from `OUT/last.safetensors` where it exists. One core trains (bfloat16 where it pays), one process makes examples.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

from galatea.faces.reader_network import FirstLook
from galatea.morphable.head import HeadModel
from training.reader.labels import mean_points
from training.reader.losses import Balance, losses
from training.reader.pictures import Examples

BATCH, PEAK_RATE, WEIGHT_DECAY, WARM_UP = 32, 1.6e-3, 0.03, 0.04
MAX_NORM, EMA = 30.0, 0.998
CALM_EXAMPLES = 4000
"""Over so many examples the learning rate rises after every start, also where a state is resumed."""
SAVE_SECONDS, LOG_STEPS = 150.0, 50
logger = logging.getLogger(__name__)


def rate_share(progress: float) -> float:
    """Return the share of the peak learning rate: a short rise, then half a cosine to zero."""
    if progress < WARM_UP:
        return progress / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP))))


class Training:
    """Network, its average, optimiser, and how far the clock is."""

    def __init__(self, out: Path, seconds: float) -> None:
        """Start afresh, or from the folder's last state."""
        self.out, self.seconds, self.spent, self.seen, self.started_at = out, seconds, 0.0, 0, 0
        model = HeadModel.load()
        self.network = FirstLook(torch.from_numpy(mean_points(model)))
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.balance = Balance()
        decayed = [p for p in self.network.parameters() if p.ndim > 1]
        plain = [p for p in self.network.parameters() if p.ndim <= 1] + list(self.balance.parameters())
        groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.99))
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        if (out / "last.safetensors").exists():
            self._resume()

    def _resume(self) -> None:
        state = load_file(self.out / "last.safetensors")
        facts = json.loads((self.out / "last.json").read_text())
        self.spent, self.seen = float(facts["spent"]), int(facts["seen"])
        self.started_at = self.seen
        self.network.load_state_dict(_under(state, "network."))
        self.balance.load_state_dict(_under(state, "balance."))
        self.average = _under(state, "average.")
        for prefix in ("exp_avg", "exp_avg_sq"):
            for number, value in _under(state, f"{prefix}.").items():
                parameter = self._parameters()[int(number)]
                self.optimizer.state[parameter] |= {prefix: value, "step": torch.tensor(float(facts["steps"]))}
        logger.info("goes on after %d examples", self.seen)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def save(self) -> None:
        """Write state and average, each in one step."""
        state = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        state |= {f"balance.{name}": value for name, value in self.balance.state_dict().items()}
        state |= {f"average.{name}": value for name, value in self.average.items()}
        steps = 0
        for number, parameter in enumerate(self._parameters()):
            moments = self.optimizer.state[parameter]
            steps = int(moments["step"])
            state |= {f"{key}.{number}": moments[key] for key in ("exp_avg", "exp_avg_sq")}
        _publish({name: value.contiguous().clone() for name, value in state.items()}, self.out / "last.safetensors")
        average = {name: value.contiguous().clone() for name, value in self.average.items()}
        _publish(average, self.out / "average.safetensors")
        facts = {"spent": self.spent, "seen": self.seen, "steps": steps}
        (self.out / "last.json").write_text(json.dumps(facts))

    def step(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Train on a batch; returns the parts of the loss."""
        calm_start = min(1.0, (self.seen - self.started_at + BATCH) / CALM_EXAMPLES)
        for group in self.optimizer.param_groups:
            group["lr"] = PEAK_RATE * calm_start * rate_share(self.spent / self.seconds)
        image = (batch["image"].float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            reading = self.network(image)
        parts = losses(reading, batch)
        total = self.balance(parts)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), MAX_NORM)
        if bool(torch.isfinite(norm)):
            self.optimizer.step()
        self.seen += len(image)
        share = min(EMA, (1 + self.seen / BATCH) / (10 + self.seen / BATCH))
        with torch.no_grad():
            for name, value in self.network.state_dict().items():
                if value.is_floating_point():
                    self.average[name].lerp_(value, 1 - share)
        return {name: float(value.detach().mean()) for name, value in parts.items()} | {"norm": float(norm)}


def _under(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def _publish(state: dict[str, Tensor], path: Path) -> None:
    temporary = path.with_suffix(".tmp")
    save_file(state, temporary)
    temporary.replace(path)


def train(training: Training, pictures: Path, seed: int) -> None:
    """Train until the clock is out."""
    loader = DataLoader(Examples(pictures, seed), BATCH, num_workers=1, prefetch_factor=6, persistent_workers=True)
    begun, saved, before = time.monotonic(), time.monotonic(), training.spent
    means: dict[str, float] = {}
    waited, last = 0.0, time.monotonic()
    for number, batch in enumerate(loader):
        waited += time.monotonic() - last
        training.spent = before + time.monotonic() - begun
        if training.spent >= training.seconds:
            break
        for name, value in training.step(batch).items():
            means[name] = means.get(name, value) * 0.98 + 0.02 * value
        if number % LOG_STEPS == 0:
            text = json.dumps({name: round(value, 4) for name, value in means.items()})
            logger.info("%6.0f s  seen %d  waited %.0f s  %s", training.spent, training.seen, waited, text)
        if time.monotonic() - saved > SAVE_SECONDS:
            training.save()
            saved = time.monotonic()
        last = time.monotonic()
    training.save()


def main() -> None:
    """Train."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True, help="folder of shards; new ones are picked up")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=60.0, help="of this and earlier runs into OUT together")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    train(Training(args.out, args.minutes * 60), args.pictures, args.seed + int(time.time()))


if __name__ == "__main__":
    main()
