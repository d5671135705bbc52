"""From a person's number to the rows of its images: drawn, rendered, encoded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import view_angles
from galatea.morphable.head import HeadModel
from stages.base import Record
from training.heads.assets import load_assets
from training.heads.dressing import dressed
from training.heads.labels import gaze, to_camera_frame
from training.heads.people import HeadSample, sample_head
from training.heads.photo import encode, take
from training.heads.renderer import HeadRenderer, Picture
from training.heads.settings import HeadsConfig

DEPTH_SCALE = 10_000
"""Stored depth per world unit: steps of 0.04 mm, up to 6.5 units."""


@dataclass(frozen=True)
class HeadRows:
    """Makes rows in one process."""

    config: HeadsConfig
    renderer: HeadRenderer

    @classmethod
    def load(cls, config: HeadsConfig, device: torch.device) -> HeadRows:
        """Load the head model and the assets.

        Raises:
            ConfigError: if the assets folder does not hold MakeHuman's system assets.
        """
        model = HeadModel.load()
        assets = load_assets(config.assets_folder, model.base_index.numpy())
        return cls(config, HeadRenderer(model, assets, "cuda" if device.type == "cuda" else "cpu"))

    def of(self, person_id: str, person: int, num_images: int) -> list[Record]:
        """Return the first `num_images` rows of a person: expressions one after the other, each with its views."""
        config = self.config
        rows: list[Record] = []
        for expression in range(-(-num_images // config.num_views)):
            drawn = sample_head(person, expression, config.num_views, self.renderer.model, self.renderer.assets)
            sample = dressed(drawn, person, expression, config.look, list(self.renderer.assets.hairs))
            about = {"person_id": person_id, "expression_index": expression, **_about(sample)}
            eyes = self._gaze(sample)
            for view, picture in enumerate(self.renderer.render(sample, config.size)):
                names = {"image_id": f"{person_id}_{expression:02d}_{view:02d}", "view_index": view}
                rng = np.random.default_rng([person, 5, expression, view])
                rows.append({**names, **about, **self._seen(sample, view, eyes), **self._pictures(picture, rng)})
        return rows[:num_images]

    def _gaze(self, sample: HeadSample) -> Float[Tensor, "1 2 3"]:
        model = self.renderer.model
        coefficients = (torch.from_numpy(part)[None] for part in (sample.person.identity, sample.expression))
        return gaze(model, self.renderer.iris(), model.vertices(*coefficients))

    def _seen(self, sample: HeadSample, view: int, eyes: Float[Tensor, "1 2 3"]) -> dict[str, Any]:
        camera = torch.from_numpy(sample.cameras[view])[None]
        angles = view_angles(camera)
        return {
            "camera": sample.cameras[view],
            "yaw_deg": angles.yaw_deg.item(),
            "pitch_deg": angles.pitch_deg.item(),
            "roll_deg": angles.roll_deg.item(),
            "gaze": eyes[0].numpy(),
            "gaze_camera": to_camera_frame(eyes, camera)[0].numpy(),
        }

    def _pictures(self, picture: Picture, rng: np.random.Generator) -> dict[str, Any]:
        normal = np.round(127.5 + 127.5 * picture.normal) * (picture.depth > 0)[..., None]
        depth = np.round(DEPTH_SCALE * picture.depth)
        photo = take(picture.rgb, picture.alpha, rng, self.config.look, self.config.image_format)
        return {
            "image": photo.data,
            "background": photo.background,
            "alpha": encode(picture.alpha, "png"),
            "part": encode(picture.part, "png"),
            "depth": encode(depth.astype(np.uint16), "png"),
            "normal": encode(normal.astype(np.uint8), "png"),
            "landmarks": picture.landmarks,
            "is_visible": picture.is_visible,
        }


def _about(sample: HeadSample) -> dict[str, Any]:
    """Return what all views of an expressed head share."""
    person, light = sample.person, sample.light
    return {
        "expression": sample.expression,
        "identity": person.identity,
        "phenotypes": person.phenotypes,
        "skin_color": person.skin_color,
        "hair_color": person.hair_color,
        "eye_color": person.eye_color,
        "light": np.stack([light.key_direction, light.key_color, light.sky, light.ground]),
        "skin": person.skin,
        "hair": person.hair,
        "has_glasses": sample.extras.glasses is not None,
        "has_beard": sample.extras.beard is not None,
        "has_occluder": sample.extras.occluder is not None,
    }
