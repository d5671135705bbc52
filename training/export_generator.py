"""Command: publish the averaged weights of a training run as the package's built-in generator.

`python -m training.export_generator --run DIR --data DIR --out galatea/data`
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
from pathlib import Path

import torch
from safetensors import safe_open

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.anchored_config import AnchoredConfig
from galatea.eg3d.checkpoint import save_generator
from galatea.eg3d.provenance import GeneratorFacts
from training.head_images import HeadImages

logger = logging.getLogger(__name__)
LICENCE = "CC0-1.0"


def averaged_generator(run: Path, data: HeadImages) -> tuple[AnchoredGenerator, dict[str, float]]:
    """Return the generator with a run's averaged weights and the mean w of the training codes, and its counters."""
    with safe_open(run / "checkpoint.safetensors", framework="pt") as file:
        names = [name for name in file.keys() if name.startswith("average.")]  # noqa: SIM118 not a dict
        state = {name.removeprefix("average."): file.get_tensor(name) for name in names}
        counters = json.loads(file.metadata()["facts"])
    fields = tuple((name, stop - start) for name, (start, stop) in data.fields.items())
    generator = AnchoredGenerator(AnchoredConfig(code_fields=fields))
    generator.load_state_dict(state)
    generator.mapping_network.measure_average(torch.from_numpy(data.arrays["code"]))
    return generator.eval().requires_grad_(False), counters


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments and export; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Publish a training run as the built-in generator.")
    parser.add_argument("--run", type=Path, required=True, help="folder of the training run")
    parser.add_argument("--data", type=Path, required=True, help="folder of training shards, for the codes' statistics")
    parser.add_argument("--out", type=Path, required=True, help="folder of the weights")
    options = parser.parse_args(arguments)
    generator, counters = averaged_generator(options.run, HeadImages(options.data))
    created = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    facts = GeneratorFacts(
        name="builtin",
        kind="anchored",
        version=f"{created}, {counters['steps']} steps",
        licence=LICENCE,
        is_commercial_use_allowed=True,
        source="trained by training.train_generator on synthetic heads rendered from MakeHuman's CC0 assets",
        created=created,
    )
    facts = save_generator(generator, options.out, facts, dtype=torch.float16)
    logger.info("%s: sha256 %s, %d parameters", options.out, facts.sha256, facts.num_parameters)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
