"""Skin folds where expressions crease it, and stays folded with age."""

import dataclasses

import numpy as np
import pytest
import torch

from galatea.cameras import orbit, project
from galatea.morphable.actions import action_vector
from galatea.morphable.correspondence import load_correspondence
from galatea.morphable.head import HeadModel
from training.heads.assets import Assets
from training.heads.extras import Extras
from training.heads.folds import FOLDS, Creases, fold_values, sample_creases
from training.heads.people import HeadSample, sample_head
from training.heads.renderer import HeadRenderer

SIZE = 128
GLABELLA, FOREHEAD_TOP = 9, 10
"""FaceMesh's landmarks between the brows and at the upper end of the forehead."""


def creases(depth: float, stays: float = 0.0) -> Creases:
    return Creases(depth, stays, np.ones(len(FOLDS)), np.zeros((len(FOLDS), 2)))


def doing(**actions: float) -> np.ndarray:
    return action_vector(actions).numpy().astype(np.float32)


@pytest.fixture(scope="module")
def bald(head: HeadModel, assets: Assets) -> HeadSample:
    """The average head without hair, seen from the front."""
    sample = sample_head(11, 0, 1, head, assets)
    person = dataclasses.replace(sample.person, identity=np.zeros(head.num_identity, np.float32), hair="")
    cameras = orbit(torch.zeros(1), torch.zeros(1)).numpy()
    return dataclasses.replace(sample, person=person, cameras=cameras, extras=Extras())


def test_raised_brows_crease_the_forehead_and_nothing_else(renderer: HeadRenderer, bald: HeadSample) -> None:
    def picture(depth: float) -> np.ndarray:
        person = dataclasses.replace(bald.person, creases=creases(depth))
        raised = dataclasses.replace(bald, person=person, expression=doing(browInnerUp=1.0))
        return renderer.render(raised, SIZE)[0].rgb.astype(float)

    changed = np.abs(picture(1.0) - picture(0.0)).max(-1) > 4
    points = load_correspondence().points(renderer.model.mean[None])[:, [GLABELLA, FOREHEAD_TOP]]
    at, _ = project(points, torch.from_numpy(bald.cameras))
    low, high = (SIZE * at[0, :, 1]).tolist()
    rows = np.flatnonzero(changed.any(1))
    assert changed[int(high) : int(low), SIZE // 2 - 8 : SIZE // 2 + 8].mean() > 0.1
    assert high - 2 < rows.min() < rows.max() < low + 2


def test_an_expression_and_its_mirror_image_crease_mirrored_places(head: HeadModel) -> None:
    left = fold_values(creases(1.0), doing(mouthSmileLeft=0.8, browOuterUpLeft=0.5))
    right = fold_values(creases(1.0), doing(mouthSmileRight=0.8, browOuterUpRight=0.5))
    assert len(left) == len(right) > 3
    np.testing.assert_allclose(left[:, 0], -right[:, 0], atol=1e-6)
    np.testing.assert_allclose(left[:, [1, 4, 6, 7]], right[:, [1, 4, 6, 7]], atol=1e-6)
    assert (left[:, 0] > 0).all()


def test_faces_at_rest_are_smooth_when_young_and_folded_when_old() -> None:
    def depth(age: float) -> float:
        rest = [
            fold_values(sample_creases(age, np.random.default_rng(seed)), doing())[:, 7].sum() for seed in range(20)
        ]
        return float(np.mean(rest))

    assert depth(0.5) == 0
    assert depth(0.65) == 0
    assert depth(1.0) > 2 * depth(0.85) > 0


def test_slight_expressions_crease_less_than_strong_ones_and_none_beyond_the_full_fold() -> None:
    depths = [fold_values(creases(1.0), doing(mouthFrownLeft=value, mouthFrownRight=value))[:, 7].max(initial=0)
              for value in (0.0, 0.2, 0.6, 1.0)]  # fmt: skip
    assert depths[0] == 0
    assert (np.diff(depths) > 0).all()
    assert depths[-1] <= 1.0
