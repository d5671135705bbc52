"""Expressions of generators without a head: targets follow the head model, latents follow targets, the rest stays."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from galatea.animation.expression_targets import PhotoFace
from galatea.animation.rendering import PortraitAnimator, RenderSettings
from galatea.animation.transfer import TransferAnimator
from galatea.cameras import orbit, project
from galatea.errors import ConfigError
from galatea.inversion.capsule import Capsule
from galatea.inversion.expression_pivots import Portrait, Targets, TransferSettings, find_pivots, tune_on_all
from galatea.morphable.actions import action_vector
from galatea.morphable.face_area import face_vertices
from galatea.morphable.head import HeadCoefficients, HeadModel

CAMERA = orbit(torch.zeros(1), torch.zeros(1))
OPEN = action_vector({"jawOpen": 0.8})[None]


@pytest.fixture(scope="module")
def face() -> PhotoFace:
    """A smooth picture on a head at rest."""
    coarse = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(0)) * 2 - 1
    photo = F.interpolate(coarse, (192, 192), mode="bicubic").clamp(-1, 1)
    model = HeadModel.load()
    return PhotoFace(photo, CAMERA, model, HeadCoefficients(torch.zeros(1, model.num_identity), torch.zeros(1, 52)))


def test_the_own_expression_is_the_photo(face):
    targets = face.targets(face.head.expression)
    assert targets.known.mean() > 0.1
    assert torch.allclose(targets.image, face.photo, atol=1e-4)


def test_skin_takes_its_colour_along_and_the_rest_stays(face):
    targets = face.targets(OPEN)
    index = face_vertices(face.model)
    before, after = (
        F.grid_sample(image, project(face.vertices(e), CAMERA)[0][:, index][:, None] * 2 - 1, align_corners=False)
        for image, e in ((face.photo, face.head.expression), (targets.image, OPEN))
    )
    places = project(face.vertices(OPEN), CAMERA)[0][:, index][:, None] * 2 - 1
    seen = F.grid_sample(targets.known, places, align_corners=False)
    error = (before - after).abs().mean(1)[seen[:, 0] > 0.99]
    assert error.numel() > 500
    assert error.median() < 0.02
    assert ((targets.image - face.photo).abs() * (1 - targets.known)).max() < 1e-6
    assert (targets.image - face.photo).abs().max() > 0.2


def portrait_of(generator) -> Portrait:
    ws = generator.mapping(torch.zeros(1, generator.z_dim), CAMERA)
    return Portrait(generator.requires_grad_(False), ws.detach(), CAMERA, 1.0)


def test_latents_and_one_tuning_for_all_come_close_to_their_targets(small):
    portrait = portrait_of(small.plain())
    draw = torch.Generator().manual_seed(1)
    hidden = portrait.ws + torch.randn(2, 1, portrait.ws.shape[-1], generator=draw)
    with torch.no_grad():
        image = portrait.generator.synthesis(hidden, CAMERA.expand(2, 25)).image.clamp(-1, 1)
        start = portrait.generator.synthesis(portrait.ws, CAMERA).image
    targets = Targets(image, torch.ones_like(image[:, :1]))
    settings = TransferSettings(pivot_steps=8, pivot_lr=0.2, tuning_steps=5, tuning_lr=0.002)
    pivots = find_pivots(portrait, targets, settings)
    tuned = tune_on_all(portrait, pivots, targets, settings)
    every = torch.arange(2)
    with torch.no_grad():
        cameras = CAMERA.expand(2, 25)
        errors = [
            targets.loss(found, every)
            for found in (
                start.expand_as(image),
                portrait.generator.synthesis(pivots, cameras).image,
                tuned.synthesis(pivots, cameras).image,
            )
        ]
    assert errors[1].mean() < 0.75 * errors[0].mean()
    assert errors[2].mean() < errors[1].mean()


def test_only_the_face_changes_and_only_where_something_is_asked(small, face):
    generator, size = small.plain(), 64
    capsule = Capsule(
        w_plus=portrait_of(generator).ws[0],
        camera=CAMERA[0],
        identity=torch.zeros(0),
        expression=torch.zeros(0),
        generator="small",
        generator_sha256=generator.describe().sha256,
    )
    settings = RenderSettings(size=size)
    expression, angles = torch.cat([face.head.expression, OPEN]), torch.tensor([[10.0, 0, 0], [10.0, 0, 0]])
    transfer = TransferSettings(pivot_steps=2, tuning_steps=1)
    animator = TransferAnimator(generator, capsule, face.photo, face.head, settings, transfer)
    still, opened = np.concatenate(list(animator.frames(expression, angles))).astype(int)
    plain = PortraitAnimator(generator, capsule, face.photo, torch.ones_like(face.photo[:, :1]), settings)
    expected = next(iter(plain.frames(expression[:1], angles[:1])))[0].astype(int)
    assert np.abs(still - expected).max() <= 1
    changed = np.abs(opened - still).max(-1) > 2
    assert 0.02 < changed.mean() < 0.5
    assert not changed[:4].any()
    assert not changed[-4:].any()


def test_a_generator_with_a_head_is_refused(small, face):
    with pytest.raises(ConfigError, match=r"animate\.method"):
        TransferAnimator(small.anchored(), None, face.photo, face.head, RenderSettings(), TransferSettings())


@pytest.mark.parametrize("change", [{"pivot_steps": 0}, {"tuning_lr": 0.0}])
def test_bad_settings_name_their_field(change):
    with pytest.raises(ConfigError, match=next(iter(change))):
        TransferSettings(**change)
