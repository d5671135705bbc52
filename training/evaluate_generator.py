"""Command: measure a generator on held-out synthetic heads, and on photos, and write picture sheets.

`python -m training.evaluate_generator --generator builtin --holdout DIR --out DIR [--photos DIR]`

Prints and writes `figures.json`: reconstruction (PSNR over the image and by part, opacity, correlation in eyes and
mouth), Frechet distance (`training.distribution`), landmarks (the face reader's on rendering and truth, share of the
inter-pupil distance), identity (dlib distance between views of one head, and between heads), expression (correlation of
asked and re-read coefficients), groups of people (`training.groups`), photos (`training.photo_figures`); and pictures:
`holdout.png`, `views.png`, `expressions.png`, `semantics.png`, `normals.png`, `photos.png`.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.checkpoint import load_generator
from galatea.errors import ConfigError
from galatea.faces.packs import open_pack
from stages.invert import InvertConfig
from training.expression_figures import expression_correlations
from training.groups import figures_by_group
from training.head_images import HeadImages
from training.held_out import identity_distances, landmark_error
from training.photo_figures import photo_figures
from training.reconstruction import evaluate, write_sheet
from training.sheets import expressions_sheet, normals_sheet, semantics_sheet, views_sheet

logger = logging.getLogger(__name__)
NUM_GROUP_IMAGES = 128
"""Images that groups of people are compared on."""


def measure(generator: AnchoredGenerator, data: HeadImages, num_images: int) -> dict[str, Any]:
    """Return all figures on held-out heads."""
    pack = open_pack()
    figures: dict[str, Any] = {"sha256": generator.sha256, "images": num_images}
    figures |= evaluate(generator, data, num_images)
    figures |= landmark_error(generator, data, pack, num_images)
    figures |= identity_distances(generator, data, pack, max(2, num_images // 4))
    correlations = expression_correlations(generator, data, pack, max(1, num_images // 16))
    figures["expression_correlation"] = float(np.mean(list(correlations.values())))
    return figures | {f"correlation_{name}": value for name, value in correlations.items()}


def main(arguments: list[str] | None = None) -> int:
    """Parse the arguments, measure, write; returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description="Measure a generator on held-out synthetic heads.")
    parser.add_argument("--generator", default="builtin", help="'builtin' or the path of a checkpoint")
    parser.add_argument("--holdout", type=Path, required=True, help="folder of held-out shards")
    parser.add_argument("--out", type=Path, required=True, help="folder of figures and pictures")
    parser.add_argument("--images", type=int, default=32, help="images that are measured")
    parser.add_argument("--photos", type=Path, help="folder of photos that are inverted and measured too")
    options = parser.parse_args(arguments)
    generator = load_generator(options.generator)
    if not isinstance(generator, AnchoredGenerator):
        raise ConfigError(f"generator: expected an anchored one, got {options.generator}")
    options.out.mkdir(parents=True, exist_ok=True)
    data = HeadImages(options.holdout, limit=512)
    figures = measure(generator, data, options.images)
    figures["groups"] = figures_by_group(generator, data, NUM_GROUP_IMAGES)
    if options.photos is not None:
        sheet = options.out / "photos.png"
        figures["photos"] = photo_figures(generator, open_pack(), options.photos, InvertConfig(), sheet)
    for name, value in figures.items():
        logger.info("%s: %s", name, f"{value:.4f}" if isinstance(value, float) else value)
    (options.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    write_sheet(generator, data, options.out / "holdout.png")
    views_sheet(generator, data, options.out / "views.png")
    expressions_sheet(generator, data, options.out / "expressions.png")
    semantics_sheet(generator, data, options.out / "semantics.png")
    normals_sheet(generator, data, options.out / "normals.png")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
