"""Train a small landmark regressor on synthetic heads.

galatea synthesize heads --count 2000 --size 64 --out heads
python examples/train_landmarks.py heads
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import nn


def load(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return pictures (n, 3, size, size) in [-1, 1] and landmarks (n, 478, 2) in image sides."""
    manifest = folder / "synthesize" / "manifest.parquet"
    rows = pq.read_table(manifest, columns=["image", "landmarks"], filters=[("status", "==", "done")]).to_pylist()
    pictures = np.stack([np.array(Image.open(folder / row["image"])) for row in rows])
    landmarks = np.array([row["landmarks"] for row in rows], dtype=np.float32).reshape(-1, 478, 2)
    return torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1, torch.from_numpy(landmarks)


def train(folder: Path, steps: int = 400, batch: int = 32) -> tuple[float, float]:
    """Return the mean landmark error before and after on the pictures trained on, in percent of the image side."""
    torch.manual_seed(0)
    pictures, landmarks = load(folder)
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 956))
    middle = landmarks.mean(0)
    optimiser = torch.optim.Adam(network.parameters(), 2e-3)

    def error(rows: torch.Tensor) -> torch.Tensor:
        found = middle + 0.1 * network(pictures[rows]).reshape(-1, 478, 2)
        return 100 * (found - landmarks[rows]).norm(dim=-1).mean()

    everything = torch.arange(min(len(pictures), 512))
    before = error(everything).item()
    for _ in range(steps):
        optimiser.zero_grad()
        error(torch.randint(len(pictures), (batch,))).backward()
        optimiser.step()
    network.eval()
    return before, error(everything).item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Train a small landmark regressor on synthetic heads.")
    parser.add_argument("folder", type=Path, help="what `galatea synthesize heads --out` wrote, on this machine")
    errors = train(parser.parse_args().folder)
    print("mean landmark error, percent of the image side: {:.2f} before, {:.2f} after".format(*errors))
