"""Posing: rays, bent rays and their projection agree with each other and with the cameras."""

import pytest
import torch

from galatea.cameras import orbit, project, view_angles
from galatea.eg3d.posing import Pose, neck_bend, pose_rays, project_posed, turned_camera
from galatea.eg3d.rays import camera_rays

ANGLES = torch.tensor([[25.0, -8.0, 5.0]])


@pytest.fixture
def camera():
    own = orbit(torch.tensor([-12.0]), torch.tensor([4.0]), torch.tensor([3.0]))
    own[:, 3] += 0.02  # off centre, as fitted cameras are
    return own


def test_turned_camera_shows_the_asked_angles(camera):
    angles = view_angles(turned_camera(camera, ANGLES))
    assert torch.allclose(torch.stack([angles.yaw_deg, angles.pitch_deg, angles.roll_deg], 1), ANGLES, atol=1e-3)


def test_asking_for_the_own_angles_changes_nothing(camera):
    own = view_angles(camera)
    same = turned_camera(camera, torch.stack([own.yaw_deg, own.pitch_deg, own.roll_deg], 1))
    assert torch.allclose(same, camera, atol=1e-5)


def test_rays_pass_through_what_projects_onto_their_pixels(camera):
    rays = camera_rays(camera, 8)
    image, _ = project(rays.origins + 2.5 * rays.directions, camera)
    centres = (torch.arange(8) + 0.5) / 8
    assert torch.allclose(image[0, :, 0].reshape(8, 8), centres.expand(8, 8), atol=1e-5)
    assert torch.allclose(image[0, :, 1].reshape(8, 8), centres[:, None].expand(8, 8), atol=1e-5)


def test_without_a_bend_the_rays_are_those_of_the_turned_camera(camera):
    posed, turned = pose_rays(Pose(camera, ANGLES), 6), camera_rays(turned_camera(camera, ANGLES), 6)
    assert torch.allclose(posed.origins, turned.origins, atol=1e-5)
    assert torch.allclose(posed.directions, turned.directions, atol=1e-5)


def test_a_bent_view_turns_the_top_fully_and_leaves_the_bottom(camera):
    pose = Pose(camera, ANGLES, torch.tensor([[0.5, 0.9]]))
    bent = pose_rays(pose, 10).directions.reshape(10, 10, 3)
    turned = camera_rays(turned_camera(camera, ANGLES), 10).directions.reshape(10, 10, 3)
    own = camera_rays(camera, 10).directions.reshape(10, 10, 3)
    assert torch.allclose(bent[:5], turned[:5], atol=1e-5)
    assert torch.allclose(bent[9:], own[9:], atol=1e-5)


def test_projection_inverts_bent_rays(camera):
    pose = Pose(camera, ANGLES, torch.tensor([[0.6, 1.0]]))
    rays = pose_rays(pose, 16)
    image, _ = project_posed(rays.origins + 2.55 * rays.directions, pose)
    centres = (torch.arange(16) + 0.5) / 16
    assert torch.allclose(image[0, :, 1].reshape(16, 16), centres[:, None].expand(16, 16), atol=2e-3)
    assert torch.allclose(image[0, :, 0].reshape(16, 16), centres.expand(16, 16), atol=2e-3)


def test_the_bend_starts_below_the_turned_chin(camera):
    chin = torch.tensor([[0.0, -0.25, 0.25]])
    nod = torch.tensor([[0.0, 20.0, 0.0]])
    image, _ = project(chin[:, None], turned_camera(camera, nod))
    bend = neck_bend(Pose(camera, nod), chin)
    assert bend[0, 0] == pytest.approx(min(image[0, 0, 1].item() + 0.02, 0.88), abs=1e-4)
    assert bend[0, 1] == 1
