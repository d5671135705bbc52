"""One 3D head in all frames scores well; frames that each are bent, or whose texture sticks to the screen, do not."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from galatea.cameras import orbit, project
from galatea.eg3d import load_generator
from galatea.faces.packs import open_pack
from galatea.metrics.consistency import FacePatch, view_landmark_error, view_psnr, view_spread_deg
from galatea.morphable.fitting import HeadFitter
from galatea.morphable.head import HeadModel

YAWS_DEG = (-24.0, -12.0, 0.0, 12.0, 24.0)


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def fitter(head) -> HeadFitter:
    return HeadFitter(head)


@pytest.fixture(scope="module")
def cameras() -> torch.Tensor:
    return orbit(torch.tensor(YAWS_DEG), torch.zeros(len(YAWS_DEG)))


@pytest.fixture(scope="module")
def clip(cameras) -> torch.Tensor:
    generator = load_generator("builtin")
    with torch.no_grad():
        ws = generator.mapping(generator.typical_codes[2:3])
        rendered = generator.render(generator.planes(ws), cameras, ws, resolution=96)
    return rendered.image


@pytest.fixture(scope="module")
def scores(weights, head, fitter):
    pack, patch = open_pack("open"), FacePatch.of(head)

    @torch.no_grad()
    def measure(images: torch.Tensor) -> tuple[float, float]:
        landmarks = pack.landmarks(images)
        fit = fitter.fit_track(landmarks)
        assert view_spread_deg(fit.camera) > 30
        error = view_landmark_error(landmarks, fit, fitter.model_for(landmarks))
        return float(error), float(view_psnr(images, fit, patch))

    return measure


def bent(images: torch.Tensor, amount: float) -> torch.Tensor:
    """Every frame warped smoothly in the image, each in its own way, by about `amount` image widths."""
    count, _, size, _ = images.shape
    coarse = torch.randn(count, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    shift = F.interpolate(coarse, (size, size), mode="bicubic", align_corners=True).permute(0, 2, 3, 1)
    still = F.affine_grid(torch.eye(2, 3).expand(count, 2, 3), [count, 3, size, size], align_corners=False)
    return F.grid_sample(images, still + 2 * amount * shift, padding_mode="reflection", align_corners=False)


def screened(images: torch.Tensor) -> torch.Tensor:
    """The same blotches over every frame: texture that sticks to the screen."""
    coarse = torch.randn(1, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    return images + 0.15 * F.interpolate(coarse, images.shape[-2:], mode="bicubic")


def seen(points: torch.Tensor) -> SimpleNamespace:
    """Landmarks of 468 points and two pupils in the layout of detectors."""
    irises = points[:, [468] * 5 + [469] * 5]
    return SimpleNamespace(points=torch.cat([points[:, :468], irises], dim=1))


@pytest.mark.weights
def test_a_clip_of_one_head_scores_better_than_the_same_clip_bent_frame_by_frame(clip, scores) -> None:
    whole, slightly, clearly = (scores(images) for images in (clip, bent(clip, 0.005), bent(clip, 0.01)))
    assert whole[0] < 0.008
    assert slightly[0] > 1.2 * whole[0]
    assert clearly[0] > 1.8 * whole[0]
    assert whole[1] > slightly[1] + 0.5 > clearly[1] + 1


@pytest.mark.weights
def test_texture_that_sticks_to_the_screen_lowers_the_psnr(clip, scores) -> None:
    assert scores(screened(clip))[1] < scores(clip)[1] - 2


def test_an_unusual_head_is_as_consistent_as_a_usual_one_and_shaking_points_are_not(fitter, cameras) -> None:
    model, random = fitter.model_for(seen(torch.zeros(1, 470, 2))), torch.Generator().manual_seed(0)
    unusual = model.mean + 0.003 * torch.randn(model.mean.shape, generator=random)
    views, _ = project(unusual.expand(len(cameras), -1, -1), cameras)
    shaken = views + 0.004 * torch.randn(views.shape, generator=random)
    errors = []
    for landmarks in (seen(views), seen(shaken)):
        fit = fitter.fit_track(landmarks)
        errors.append(float(view_landmark_error(landmarks, fit, model)))
    assert errors[0] < 0.003
    assert errors[1] > 3 * errors[0]


def test_the_same_picture_all_the_time_has_no_noise_and_one_view(head, fitter, cameras) -> None:
    model = fitter.model_for(seen(torch.zeros(1, 470, 2)))
    views, _ = project(model.mean.expand(len(cameras), -1, -1), cameras)
    still = fitter.fit_track(seen(views[2:3].expand(4, -1, -1)))
    picture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert float(view_spread_deg(still.camera)) < 0.1
    assert float(view_psnr(picture.expand(4, -1, -1, -1), still, FacePatch.of(head))) > 90


def test_the_spread_of_views_is_the_largest_angle_between_them(cameras) -> None:
    assert float(view_spread_deg(cameras)) == pytest.approx(48, abs=0.1)
