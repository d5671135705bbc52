import pytest
import torch

from galatea.animation.camera_path import TURN_DEG, camera_path, camera_path_names
from galatea.animation.motion import NUM_ACTIONS, Motion
from galatea.animation.presets import preset, preset_names
from galatea.errors import DriverError, InputError
from galatea.morphable.actions import ACTION_INDEX, action_vector, mirror_permutation

MOTIONS = [preset(name) for name in preset_names()] + [camera_path(name) for name in camera_path_names()]


@pytest.mark.parametrize("motion", MOTIONS, ids=lambda motion: motion.name)
def test_motion_survives_bytes(motion):
    again = Motion.from_bytes(motion.to_bytes())
    assert (again.name, again.fps, again.kind) == (motion.name, motion.fps, motion.kind)
    for track in ("expression", "angles_deg", "is_valid", "neutral", "own_share"):
        assert torch.equal(getattr(again, track), getattr(motion, track))


@pytest.mark.parametrize("motion", MOTIONS, ids=lambda motion: motion.name)
def test_motion_loops_without_a_seam(motion):
    for track in (motion.expression, motion.angles_deg / 30, motion.own_share[:, None]):
        steps = (track.roll(-1, 0) - track).abs().amax(1)
        assert steps[-1] <= steps[:-1].max() + 1e-4


@pytest.mark.parametrize("name", preset_names())
def test_presets_stay_in_range_and_start_at_rest(name):
    motion = preset(name, amplitude=3.0)
    assert motion.expression.min() >= 0
    assert motion.expression.max() <= 1
    assert motion.expression[0].max() < 0.05
    assert motion.own_share[0] == 1


@pytest.mark.parametrize(
    ("name", "action"),
    [("smile", "mouthSmileLeft"), ("open_mouth", "jawOpen"), ("blink", "eyeBlinkLeft"), ("surprise", "browInnerUp"),
     ("frown", "browDownRight"), ("talk", "jawOpen")],
)  # fmt: skip
def test_presets_do_what_their_name_says(name, action):
    assert preset(name).expression[:, ACTION_INDEX[action]].max() > 0.35


def test_neutral_lets_go_of_the_portraits_own_expression():
    assert preset("neutral").own_share.min() == 0


def test_turn_sweeps_both_sides():
    motion = camera_path("turn")
    assert motion.yaw_deg.max() == pytest.approx(TURN_DEG, abs=0.2)
    assert motion.yaw_deg.min() == pytest.approx(-TURN_DEG, abs=0.2)
    assert motion.kind == "absolute"


def test_unknown_names_list_what_exists():
    with pytest.raises(DriverError, match="smile"):
        preset("smirk")
    with pytest.raises(DriverError, match="orbit"):
        camera_path("barrel_roll")


@pytest.mark.parametrize("data", [b"", b"x" * 100, MOTIONS[0].to_bytes()[:-8]])
def test_foreign_bytes_are_no_motion(data):
    with pytest.raises(InputError):
        Motion.from_bytes(data)


def test_motion_refuses_nan_and_wrong_shapes():
    good = preset("smile")
    with pytest.raises(InputError, match="expression"):
        Motion.build(name="x", fps=25, kind="relative", expression=good.expression[:, :5], angles_deg=good.angles_deg)
    with pytest.raises(InputError, match="finite"):
        Motion.build(
            name="x", fps=25, kind="relative", expression=good.expression * torch.nan, angles_deg=good.angles_deg
        )
    with pytest.raises(InputError, match="fps"):
        Motion.build(name="x", fps=0, kind="relative", expression=good.expression, angles_deg=good.angles_deg)
    with pytest.raises(InputError, match="kind"):
        Motion.build(name="x", fps=25, kind="sideways", expression=good.expression, angles_deg=good.angles_deg)


def test_mirroring_twice_is_the_identity():
    permutation = torch.tensor(mirror_permutation())
    assert torch.equal(permutation[permutation], torch.arange(NUM_ACTIONS))
    left = action_vector({"mouthSmileLeft": 1.0})
    assert torch.equal(left[permutation], action_vector({"mouthSmileRight": 1.0}))


def test_pairs_expand_and_misspelt_actions_are_refused():
    assert action_vector({"eyeBlink": 0.5}).sum() == 1
    with pytest.raises(ValueError, match="mouthSmirk"):
        action_vector({"mouthSmirk": 1.0})
