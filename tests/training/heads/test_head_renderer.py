"""Pictures agree with their labels."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from galatea.cameras import orbit, project
from galatea.errors import ConfigError
from galatea.morphable.actions import ARKIT_ACTIONS, action_vector
from galatea.morphable.correspondence import load_correspondence
from galatea.morphable.head import HeadModel
from training.heads.assets import Assets, load_assets, read_proxy, to_linear
from training.heads.extras import Extras
from training.heads.people import HeadSample, Light, sample_head
from training.heads.renderer import PARTS, HeadRenderer, to_display

SIZE = 96
LOWER_LIP = 17
"""FaceMesh's landmark at the lower edge of the lower lip."""


@pytest.fixture(scope="module")
def plain(head: HeadModel, assets: Assets) -> HeadSample:
    """The average head, neutral, bald, in even white light, seen from the front and from the side."""
    sample = sample_head(11, 0, 1, head, assets)
    ones = np.ones(3)
    person = dataclasses.replace(
        sample.person,
        identity=np.zeros(head.num_identity, np.float32),
        hair="",
        skin_color=np.array([0.6, 0.45, 0.35]),
        cloth_color=np.array([0.1, 0.2, 0.8]),
        shine=0.0,
    )
    return dataclasses.replace(
        sample,
        person=person,
        expression=np.zeros(52, np.float32),
        light=Light(np.array([0.0, 0.0, 1.0]), 0.5 * ones, 0.7 * ones, 0.3 * ones),
        cameras=orbit(torch.tensor([0.0, 40.0]), torch.tensor([0.0, 0.0])).numpy(),
    )


def test_part_mask_holds_eyes_where_the_model_has_them(
    renderer: HeadRenderer, head: HeadModel, plain: HeadSample
) -> None:
    front = renderer.render(plain, SIZE)[0]
    centres = head.eye_centres(head.mean[None]) + torch.tensor([0.0, 0.0, 0.033])
    points, depth = project(centres, torch.from_numpy(plain.cameras[:1]))
    for (x, y), z in zip(points[0] * SIZE, depth[0], strict=True):
        row, column = int(y), int(x)
        assert PARTS[front.part[row, column]] == "eyes"
        assert front.depth[row, column] == pytest.approx(float(z), abs=0.02)


def test_alpha_covers_the_head_only(renderer: HeadRenderer, plain: HeadSample) -> None:
    for picture in renderer.render(plain, SIZE):
        assert picture.alpha[0, 0] == 0
        assert picture.alpha[SIZE // 2, SIZE // 2] == 255
        assert ((picture.part == 0) == (picture.depth == 0)).all()
        assert (picture.rgb[picture.alpha == 0] == 0).all()
        assert 0.3 < (picture.alpha > 127).mean() < 0.85


def test_skin_shows_the_colour_of_its_label(renderer: HeadRenderer, plain: HeadSample) -> None:
    front = renderer.render(plain, SIZE)[0]
    cheeks = front.rgb[52:60, 36:60][front.part[52:60, 36:60] == 1].mean(0) / 255
    np.testing.assert_allclose(cheeks, plain.person.skin_color, atol=0.09)


def test_clothing_covers_the_shoulders_in_its_colour(renderer: HeadRenderer, plain: HeadSample) -> None:
    front = renderer.render(plain, SIZE)[0]
    is_cloth = front.part == PARTS.index("cloth")
    assert is_cloth[-8:].any()
    assert not is_cloth[: SIZE // 2].any()
    red, _, blue = front.rgb[is_cloth].mean(0)
    assert blue > 2 * red


def test_blink_hides_the_eyes_and_open_jaw_shows_the_mouth(renderer: HeadRenderer, plain: HeadSample) -> None:
    def parts(**actions: float) -> np.ndarray:
        expression = np.zeros(52, np.float32)
        for name, value in actions.items():
            expression[ARKIT_ACTIONS.index(name)] = value
        picture = renderer.render(dataclasses.replace(plain, expression=expression), SIZE)[0]
        return np.bincount(picture.part.ravel(), minlength=len(PARTS))

    rest, blink, wide = parts(), parts(eyeBlinkLeft=1.0, eyeBlinkRight=1.0), parts(jawOpen=1.0)
    eyes, mouth = PARTS.index("eyes"), PARTS.index("mouth")
    assert rest[eyes] > 20
    assert blink[eyes] < 0.15 * rest[eyes]
    assert wide[mouth] > rest[mouth] + 60


def test_light_from_the_left_lights_the_left(renderer: HeadRenderer, plain: HeadSample) -> None:
    sideways = dataclasses.replace(plain.light, key_direction=np.array([0.95, 0.1, 0.3]))
    front = renderer.render(dataclasses.replace(plain, light=sideways), SIZE)[0]
    cheek = front.rgb[50:62].astype(float).mean(-1)
    assert cheek[:, 60:66].mean() > 1.15 * cheek[:, 30:36].mean()


def test_rendering_is_deterministic(renderer: HeadRenderer, head: HeadModel, assets: Assets) -> None:
    sample = sample_head(21, 0, 2, head, assets)
    first, again = renderer.render(sample, 48), renderer.render(sample, 48)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.depth, other.depth)


def test_a_proxy_follows_its_vertices_and_scales_its_offsets(assets_folder: Path, head: HeadModel) -> None:
    place = np.full(19158, -1)
    place[head.base_index.numpy()] = np.arange(head.num_vertices)
    proxy = read_proxy(assets_folder / "hair" / "short01" / "short01.mhclo", place)
    vertices = head.mean.numpy()
    lift = proxy.fit(vertices) - vertices[proxy.refs[:, 0]]
    span = abs(vertices[place[791], 1] - vertices[place[881], 1]) / 2.3
    np.testing.assert_allclose(lift[:, 1], 0.15 * span, rtol=1e-3)
    moved = vertices + np.float32([0.1, 0.2, 0.3])
    np.testing.assert_allclose(proxy.fit(moved) - proxy.fit(vertices), [[0.1, 0.2, 0.3]] * len(lift), atol=1e-5)


def test_a_folder_without_skins_is_refused_by_name(tmp_path: Path, head: HeadModel) -> None:
    with pytest.raises(ConfigError, match="skins/textures"):
        load_assets(tmp_path, head.base_index.numpy())


def test_display_curve_inverts_to_linear_below_the_shoulder_and_never_clips_hard() -> None:
    linear = np.linspace(0, 0.7, 50)
    np.testing.assert_allclose(to_linear(to_display(linear)), linear, atol=1e-6)
    bright = to_display(np.linspace(0.7, 4, 50))
    assert (np.diff(bright) > 0).all()
    assert bright.max() <= 1


@pytest.mark.shared
def test_a_head_with_the_real_assets_looks_like_its_labels(shared_dir: Path, head: HeadModel) -> None:
    folder = shared_dir / "makehuman"
    if not folder.is_dir():
        pytest.skip(f"no MakeHuman assets in {folder}")
    renderer = HeadRenderer(head, load_assets(folder, head.base_index.numpy()))
    picture = renderer.render(sample_head(3, 0, 1, head, renderer.assets), 64)[0]
    present = set(np.unique(picture.part))
    assert {0, 1, PARTS.index("cloth")} & present >= {0, 1}
    assert picture.rgb[picture.part == 1].std() > 5


@pytest.mark.shared
def test_wide_open_mouths_show_upper_teeth_and_nothing_pierces_the_chin(shared_dir: Path, head: HeadModel) -> None:
    folder = shared_dir / "makehuman"
    if not folder.is_dir():
        pytest.skip(f"no MakeHuman assets in {folder}")
    renderer = HeadRenderer(head, load_assets(folder, head.base_index.numpy()))
    correspondence = load_correspondence()
    wide = action_vector({"jawOpen": 1.0}).numpy()
    cameras = orbit(torch.tensor([0.0, 30.0]), torch.tensor([-12.0, 5.0]))
    for seed in (700_000_000, 700_000_005, 700_000_006):
        sample = sample_head(seed, 0, 1, head, renderer.assets)
        sample = dataclasses.replace(sample, expression=wide, cameras=cameras.numpy(), extras=Extras())
        vertices = head.vertices(torch.from_numpy(sample.person.identity)[None], torch.from_numpy(wide)[None])
        lip, _ = project(correspondence.points(vertices)[:, [LOWER_LIP]].expand(2, -1, -1), cameras.float())
        for picture, row in zip(renderer.render(sample, 128), 128 * lip[:, 0, 1], strict=True):
            is_mouth = picture.part == PARTS.index("mouth")
            assert is_mouth[: int(row)].any()
            assert not is_mouth[int(row) + 3 :].any()


def test_light_gathered_only_where_it_is_seen_gives_the_same_pictures(
    renderer: HeadRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sample = sample_head(31, 0, 2, renderer.model, renderer.assets)
    pictures = []
    for stride in (1, 100):
        monkeypatch.setattr("training.heads.lighting.GUESS_STRIDE", stride)
        pictures.append(renderer.render(sample, 96))
    for one, other in zip(*pictures, strict=True):
        np.testing.assert_array_equal(one.rgb, other.rgb)
        np.testing.assert_array_equal(one.alpha, other.alpha)
