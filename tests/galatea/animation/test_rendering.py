"""The animator: the photo's own view is the photo, nothing asked changes nothing, both kinds of generators work."""

import numpy as np
import pytest
import torch

from galatea.animation.rendering import PortraitAnimator, RenderSettings
from galatea.errors import ConfigError, WeightsError
from galatea.inversion.capsule import Capsule

SIZE = 64


def make_capsule(generator, small_camera):
    ws = generator.mapping(torch.zeros(1, generator.z_dim), small_camera)
    counts = (2, 52) if generator.is_anchored else (0, 0)
    return Capsule(
        w_plus=ws[0].detach(),
        camera=small_camera[0],
        identity=torch.zeros(counts[0]),
        expression=torch.zeros(counts[1]),
        generator="small",
        generator_sha256=generator.describe().sha256,
    )


def scene():
    """A photo: a bright disc, somewhat larger than the head, on a dark ramp."""
    row, column = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    matte = (((row - 32) ** 2 + (column - 32) ** 2) < 26**2).float()[None, None]
    photo = matte * 0.7 + (1 - matte) * (column / SIZE - 1.0)
    return photo.expand(1, 3, SIZE, SIZE).clone(), matte


@pytest.fixture
def animate(small_generators):
    def build(kind, **settings):
        generator = small_generators[kind]()
        camera = small_generators["camera"]()
        photo, matte = scene()
        capsule = make_capsule(generator, camera)
        return PortraitAnimator(generator, capsule, photo, matte, RenderSettings(size=SIZE, **settings)), photo

    return build


def test_generators_without_a_head_are_animated_by_their_camera(animate):
    animator, _ = animate("plain")
    frames = next(iter(animator.frames(torch.zeros(2, 52), torch.tensor([[0.0, 0, 0], [20.0, 0, 0]]))))
    assert frames.shape == (2, SIZE, SIZE, 3)
    assert (frames[0] != frames[1]).any()


def test_the_photo_s_own_view_is_close_to_the_photo(animate):
    animator, photo = animate("anchored")
    frame = animator.batch(torch.zeros(1, 52), animator.own_angles_deg[None])
    inner = (frame - (photo * 0.5 + 0.5)).abs()[..., 20:44, 20:44]
    assert inner.mean() < 0.03


def test_frames_come_in_batches_and_do_not_depend_on_them(animate):
    animator, _ = animate("anchored", batch_size=2)
    angles = torch.tensor([[-10.0, 0, 0], [0, 0, 0], [10, 5, 0]])
    expression = torch.zeros(3, 52)
    expression[1, 0] = 0.5
    batches = list(animator.frames(expression, angles))
    assert [len(batch) for batch in batches] == [2, 1]
    alone = next(iter(animator.frames(expression[2:], angles[2:])))
    assert np.abs(batches[1][0].astype(int) - alone[0].astype(int)).max() <= 2


def test_turning_moves_the_head_and_leaves_the_lower_border(animate):
    animator, _ = animate("anchored", use_neck=True)
    own, turned = (animator.batch(torch.zeros(1, 52), torch.tensor([[yaw, 0.0, 0.0]])) for yaw in (0.0, 25.0))
    assert (own - turned).abs()[..., 20:40, :].mean() > 2 * (own - turned).abs()[..., -2:, :].mean()


def test_another_generator_is_refused(small_generators):
    generator, camera = small_generators["plain"](), small_generators["camera"]()
    photo, matte = scene()
    capsule = make_capsule(generator, camera)
    strange = Capsule(**{**vars(capsule), "generator_sha256": "12" * 32})
    with pytest.raises(WeightsError, match="sha256"):
        PortraitAnimator(generator, strange, photo, matte)


def test_bad_settings_name_their_field():
    with pytest.raises(ConfigError, match=r"render\.size"):
        RenderSettings(size=65)
