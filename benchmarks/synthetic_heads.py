"""How fast synthetic heads are rendered: CPU seconds of one thread per image, by part of the work.

`python benchmarks/synthetic_heads.py --assets DIR` prints a Markdown table; processor time is counted, so other load
on the machine hardly matters. Two views per expressed head, as the shards have them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch

from galatea.morphable.head import HeadModel
from training.heads.assets import load_assets
from training.heads.people import sample_head
from training.heads.renderer import HeadRenderer

NUM_HEADS = 12
NUM_VIEWS = 2


def main() -> None:
    """Measure at three sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = HeadModel.load()
    renderer = HeadRenderer(model, load_assets(options.assets, model.base_index.numpy()))
    renderer.render(sample_head(0, 0, 1, model, renderer.assets), 32)
    print("| image side | CPU ms per image | images/s and core |\n|---|---|---|")
    for size in (64, 128, 256):
        start = time.process_time()
        for seed in range(NUM_HEADS):
            renderer.render(sample_head(seed, 0, NUM_VIEWS, model, renderer.assets), size)
        each = (time.process_time() - start) / (NUM_HEADS * NUM_VIEWS)
        print(f"| {size} | {1000 * each:.0f} | {1 / each:.1f} |")


if __name__ == "__main__":
    main()
