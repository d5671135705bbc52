"""What heads wear and what photos do to them: on demand, from seeds, with labels that know of it."""

from dataclasses import fields, replace

import numpy as np
import pytest

from galatea.errors import ConfigError
from tests.training.heads.test_head_labels import camera
from training.heads import shading
from training.heads.dressing import dressed, sample_extras
from training.heads.extras import CUPS, Beard, Extras, Glasses, Occluder
from training.heads.people import HeadSample, sample_head
from training.heads.photo import take
from training.heads.renderer import PARTS, HeadRenderer, Picture
from training.heads.settings import Look

PLAIN = Look(background=0, glasses=0, beard=0, occluder=0, iris=0, open_eyes=0, color=0, blur=0, noise=0, compression=0)
"""Nothing but the head, as the generator's shards have it."""
EVERYTHING = Look(**{item.name: 1.0 for item in fields(Look)})
GREY = np.full(3, 0.5)


@pytest.fixture(scope="module")
def plain(renderer: HeadRenderer) -> HeadSample:
    sample = sample_head(21, 0, 1, renderer.model, renderer.assets)
    return replace(sample, cameras=camera(0.0)[None], expression=np.zeros(52, np.float32))


def seen(renderer: HeadRenderer, plain: HeadSample, **extras: object) -> Picture:
    return renderer.render(replace(plain, extras=Extras(**extras)), 96)[0]  # type: ignore[arg-type]


def glasses(opacity: float) -> Glasses:
    return Glasses(0.065, 0.045, 2.5, 0.005, np.zeros(3), np.zeros(3), opacity, 0.01)


def test_the_same_numbers_dress_a_head_alike_and_a_plain_look_leaves_it_alone(
    renderer: HeadRenderer, plain: HeadSample
) -> None:
    styles = list(renderer.assets.hairs)
    one, again = (dressed(plain, 21, 0, EVERYTHING, styles) for _ in range(2))
    assert one.extras.glasses is not None
    assert one.extras.occluder is not None
    np.testing.assert_array_equal(one.extras.glasses.color, again.extras.glasses.color)  # type: ignore[union-attr]
    assert dressed(plain, 21, 0, PLAIN, styles).extras == Extras()
    assert dressed(plain, 21, 0, PLAIN, styles).person is plain.person


def test_only_grown_men_have_beards_and_glasses_stay_over_expressions(renderer: HeadRenderer) -> None:
    people = [sample_head(seed, 0, 1, renderer.model, renderer.assets).person for seed in range(60)]
    both = [
        [sample_extras(seed, index, person, Look(beard=1)) for index in (0, 1)] for seed, person in enumerate(people)
    ]
    for person, (first, second) in zip(people, both, strict=True):
        is_man = person.phenotypes[0] < 0.5 and person.phenotypes[1] > 0.64
        assert (first.beard is not None) == is_man
        assert (first.glasses is None) == (second.glasses is None)
    share = np.mean([first.glasses is not None for first, _ in both])
    assert 0.05 < share < 0.4


def test_frames_are_drawn_around_the_eyes_which_clear_lenses_show(renderer: HeadRenderer, plain: HeadSample) -> None:
    bare, clear, dark = (
        seen(renderer, plain, **worn) for worn in ({}, {"glasses": glasses(0.05)}, {"glasses": glasses(0.95)})
    )
    frame = PARTS.index("glasses")
    assert not (bare.part == frame).any()
    assert 0.01 < (clear.part == frame).mean() < (dark.part == frame).mean()
    pupils = [468, 473]
    assert clear.is_visible[pupils].all()
    assert not dark.is_visible[pupils].any()
    rows = np.flatnonzero((clear.part == frame).any(1)) / 96
    assert rows.min() < bare.landmarks[pupils, 1].mean() < rows.max()


def test_a_cup_hides_what_is_behind_it_and_nothing_else(renderer: HeadRenderer, plain: HeadSample) -> None:
    cup = Occluder(CUPS, np.array([0.0, 0.02, 0.08]), 0.0, 1.0, GREY)
    bare, hidden = seen(renderer, plain), seen(renderer, plain, occluder=cup)
    is_cup = hidden.part == PARTS.index("object")
    assert is_cup.mean() > 0.03
    assert (hidden.depth[is_cup & (bare.part == 1)] < bare.depth[is_cup & (bare.part == 1)]).all()
    assert not hidden.is_visible[[17, 152]].any(), "lower lip and chin"
    assert hidden.is_visible[[10, 151]].all(), "forehead"


def test_beards_darken_jaw_and_lip_and_long_ones_stand_off_the_skin(renderer: HeadRenderer, plain: HeadSample) -> None:
    stubble, long = (Beard(1, 1, 1, 0.9, length, np.full(3, 0.03)) for length in (0.0, 0.02))
    bare, short, full = (seen(renderer, plain, **worn) for worn in ({}, {"beard": stubble}, {"beard": long}))
    chin, forehead = ((bare.landmarks[point] * 96).astype(int) for point in (200, 151))
    assert short.rgb[chin[1], chin[0]].mean() < 0.8 * bare.rgb[chin[1], chin[0]].mean()
    np.testing.assert_array_equal(short.rgb[forehead[1], forehead[0]], bare.rgb[forehead[1], forehead[0]])
    assert (full.part == PARTS.index("beard")).mean() > 0.01
    builder = renderer.geometry
    built = builder.build(replace(plain, extras=Extras(beard=long)))
    shell = built.vertices[built.vertex_material == shading.BEARD]
    assert len(shell) > 100
    assert np.abs(shell[:, 0]).max() < 0.25


def test_smaller_irises_move_the_landmarks_on_their_rims(renderer: HeadRenderer, plain: HeadSample) -> None:
    doll, natural = seen(renderer, plain), seen(renderer, plain, iris_scale=0.75)
    radius = [np.linalg.norm(picture.landmarks[469] - picture.landmarks[468]) for picture in (doll, natural)]
    assert radius[1] == pytest.approx(0.76 * radius[0], rel=0.03)


@pytest.mark.parametrize("kind", ["jpeg", "webp", "png"])
def test_a_photo_is_drawn_from_its_generator_alone(kind: str) -> None:
    rgb, alpha = np.full((48, 48, 3), 128, np.uint8), np.zeros((48, 48), np.uint8)
    one, again, other = (take(rgb, alpha, np.random.default_rng(seed), EVERYTHING, kind) for seed in (1, 1, 2))
    assert one.data == again.data != other.data
    assert one.background != "none"


def test_a_plain_photo_is_the_head_before_black() -> None:
    rgb, alpha = np.full((16, 16, 3), 200, np.uint8), np.zeros((16, 16), np.uint8)
    alpha[:, 8:] = 255
    photo = take(rgb, alpha, np.random.default_rng(0), PLAIN, "png")
    from io import BytesIO

    from PIL import Image

    pixels = np.array(Image.open(BytesIO(photo.data)))
    assert (pixels[:, :8] == 0).all()
    assert (pixels[:, 8:] == 200).all()


def test_a_probability_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="glasses"):
        Look(glasses=1.5)
