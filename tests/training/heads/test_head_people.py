"""Sampling: everything from a seed, sensible ranges, a code whose fields say what they hold."""

import itertools

import numpy as np
import pytest
import torch

from galatea.cameras import view_angles
from galatea.morphable.actions import ARKIT_ACTIONS
from galatea.morphable.head import HeadModel
from training.heads.assets import Assets
from training.heads.code import code_fields, encode
from training.heads.expressions import sample_expression
from training.heads.people import sample_cameras, sample_head, sample_light


def test_a_seed_gives_the_same_head_and_another_seed_another(head: HeadModel, assets: Assets) -> None:
    first, again, other = (sample_head(seed, 0, 2, head, assets) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first.person.identity, again.person.identity)
    np.testing.assert_array_equal(first.expression, again.expression)
    np.testing.assert_array_equal(first.cameras, again.cameras)
    assert first.person.hair == again.person.hair
    assert np.abs(first.person.identity - other.person.identity).max() > 0.5


def test_expressions_of_a_person_differ_but_the_person_does_not(head: HeadModel, assets: Assets) -> None:
    first, second = (sample_head(7, expression, 2, head, assets) for expression in (0, 1))
    np.testing.assert_array_equal(first.person.identity, second.person.identity)
    assert first.person.skin == second.person.skin
    assert np.abs(first.expression - second.expression).max() > 0.05
    assert np.abs(first.cameras - second.cameras).max() > 0.01


def test_expressions_stay_in_range_and_use_every_action() -> None:
    rng = np.random.default_rng(0)
    drawn = np.stack([sample_expression(rng) for _ in range(3000)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert (drawn.max(0) > 0.2).all()
    gaze = np.array([name.startswith("eyeLook") for name in ARKIT_ACTIONS])
    is_neutral = (drawn[:, ~gaze] == 0).all(1)
    assert is_neutral.mean() == pytest.approx(0.15, abs=0.03)


def test_both_eyes_look_the_same_way() -> None:
    rng = np.random.default_rng(1)
    drawn = np.stack([sample_expression(rng) for _ in range(200)])
    value = {name: drawn[:, row] for row, name in enumerate(ARKIT_ACTIONS)}
    np.testing.assert_array_equal(value["eyeLookOutLeft"], value["eyeLookInRight"])
    np.testing.assert_array_equal(value["eyeLookOutRight"], value["eyeLookInLeft"])


def test_cameras_are_where_portraits_are_seen_from() -> None:
    cameras = torch.from_numpy(sample_cameras(2000, np.random.default_rng(2)))
    angles = view_angles(cameras)
    assert angles.yaw_deg.abs().max() <= 70.5
    assert (angles.yaw_deg.abs() <= 42.5).float().mean() > 0.85
    assert angles.pitch_deg.abs().max() <= 20.5


def test_light_comes_from_above_the_horizon_and_is_bounded() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        light = sample_light(rng)
        assert np.linalg.norm(light.key_direction) == pytest.approx(1)
        assert light.key_direction[1] > 0
        assert 0 < light.key_color.max() < 1.3


def test_code_fields_tile_the_code_and_hold_the_labels(head: HeadModel, assets: Assets) -> None:
    sample = sample_head(9, 0, 1, head, assets)
    code, fields = encode(sample, assets), code_fields(assets)
    spans = sorted(fields.values())
    assert spans[0][0] == 0
    assert all(before[1] == after[0] for before, after in itertools.pairwise(spans))
    assert spans[-1][1] == len(code) <= 120
    np.testing.assert_allclose(code[slice(*fields["skin_color"])], sample.person.skin_color, rtol=1e-6)
    for style in ("skin_texture", "hair_style", "brow_style", "lash_style"):
        assert code[slice(*fields[style])].sum() == 1


def test_dark_skin_is_brown_rather_than_red(head: HeadModel, assets: Assets) -> None:
    people = [sample_head(seed, 0, 1, head, assets).person for seed in range(150)]
    dark = np.array([person.skin_color for person in people if person.skin_color.mean() < 0.4])
    assert len(dark) > 5
    assert ((dark[:, 0] / dark[:, 1]) < 1.65).all()
