import pytest
import torch

from galatea.animation.camera_path import camera_path
from galatea.animation.motion import Motion
from galatea.animation.presets import preset
from galatea.errors import ConfigError
from galatea.morphable.actions import action_vector
from galatea.morphable.retarget import RetargetSettings, driver_neutral, retarget

OWN = action_vector({"mouthSmile": 0.6, "eyeSquint": 0.2})
OWN_ANGLES = torch.tensor([10.0, -3.0, 1.0])


def driver(expression, angles=None, kind="absolute", **tracks):
    frames = expression.shape[0]
    angles = torch.zeros(frames, 3) if angles is None else angles
    return Motion.build(name="driver", fps=25, kind=kind, expression=expression, angles_deg=angles, **tracks)


def test_driver_at_rest_leaves_the_portrait_as_it_is():
    rest = action_vector({"browDown": 0.3})
    motion = driver(rest.expand(4, 52), neutral=rest, kind="relative")
    result = retarget(motion, OWN, OWN_ANGLES)
    assert torch.allclose(result.expression, OWN.expand(4, 52))
    assert torch.allclose(result.yaw_deg, torch.full((4,), 10.0))


def test_only_the_change_from_the_drivers_neutral_counts():
    rest = action_vector({"mouthSmile": 0.4})
    motion = driver((rest + action_vector({"jawOpen": 0.5})).expand(2, 52), neutral=rest)
    result = retarget(motion, OWN, OWN_ANGLES, RetargetSettings(amplitude=1.5))
    assert torch.allclose(result.expression[0], OWN + action_vector({"jawOpen": 0.75}))


def test_coefficients_are_clamped_and_opposites_do_not_fight():
    motion = driver(action_vector({"mouthFrown": 0.5, "mouthSmile": 0.9}).expand(1, 52))
    result = retarget(motion, OWN, OWN_ANGLES).expression[0]
    assert torch.allclose(result[action_vector({"mouthSmile": 1}).bool()], torch.tensor(0.5))
    assert result[action_vector({"mouthFrown": 1}).bool()].max() == 0


def test_camera_path_keeps_the_portraits_expression():
    assert torch.allclose(retarget(camera_path("turn"), OWN, OWN_ANGLES).expression, OWN.expand(100, 52))


def test_neutral_preset_takes_the_smile_away():
    assert retarget(preset("neutral"), OWN, OWN_ANGLES).expression[40].max() < 0.05


@pytest.mark.parametrize(
    ("head", "kind", "expected"),
    [("motion", "absolute", [5, 8]), ("motion", "relative", [15, 18]), ("relative", "absolute", [10, 13]),
     ("absolute", "relative", [5, 8]), ("still", "absolute", [10, 10])],
)  # fmt: skip
def test_head_modes(head, kind, expected):
    motion = driver(torch.zeros(2, 52), torch.tensor([[5.0, 0, 0], [8.0, 0, 0]]), kind)
    result = retarget(motion, OWN, OWN_ANGLES, RetargetSettings(head=head))
    assert result.yaw_deg.tolist() == pytest.approx(expected)


def test_angles_stay_within_what_a_generator_has_seen():
    motion = driver(torch.zeros(1, 52), torch.tensor([[170.0, -80.0, 90.0]]))
    result = retarget(motion, OWN, OWN_ANGLES)
    assert (float(result.yaw_deg), float(result.pitch_deg), float(result.roll_deg)) == (45, -30, 30)


def test_driver_neutral_ignores_frames_without_a_face():
    expression = torch.cat([torch.zeros(5, 52), torch.full((15, 52), 0.4)])
    is_valid = torch.arange(20) >= 5
    assert torch.allclose(driver_neutral(expression, is_valid), torch.full((52,), 0.4))


@pytest.mark.parametrize("bad", [{"amplitude": -1}, {"head": "sideways"}, {"own_share": 2}, {"head_amplitude": 9}])
def test_settings_name_the_wrong_field(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        RetargetSettings(**bad)
