"""Small generators of both kinds, with known weights."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from galatea.cameras import PIVOT, orbit
from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.generator import TriPlaneGenerator
from galatea.morphable.baking import PARTS
from galatea.morphable.head import HeadCoefficients
from tests.small_generators import SMALL, SMALL_PLAIN


class SphereHead:
    """A head model that is a sphere: two identity coefficients scale it, the first action moves it down."""

    num_identity = 2

    def __init__(self, rings=24, radius=0.2):
        theta = torch.linspace(0.02, torch.pi - 0.02, rings)
        phi = torch.arange(2 * rings) / (2 * rings) * 2 * torch.pi
        t, p = torch.meshgrid(theta, phi, indexing="ij")
        self.mean = radius * torch.stack([t.sin() * p.sin(), t.cos(), t.sin() * p.cos()], -1).reshape(-1, 3)
        row, column = torch.meshgrid(torch.arange(rings - 1), torch.arange(2 * rings), indexing="ij")
        a, b = row * 2 * rings + column, row * 2 * rings + (column + 1) % (2 * rings)
        c, d = a + 2 * rings, b + 2 * rings
        self.faces = torch.cat([torch.stack([a, c, b], -1), torch.stack([b, c, d], -1)]).reshape(-1, 3)
        uv = torch.stack([p / (2 * torch.pi), 1 - t / torch.pi], -1).reshape(-1, 2)
        self.uv = uv[self.faces]
        ring, place = torch.meshgrid(torch.arange(rings), torch.arange(2 * rings), indexing="ij")
        self.mirror_vertices = (ring * 2 * rings + (-place) % (2 * rings)).flatten()
        self.part = torch.zeros(len(self.faces), dtype=torch.long)
        self.action_basis = torch.zeros(52, len(self.mean), 3)
        self.action_basis[0, :, 1] = -0.1
        self.part_names = PARTS
        self.mouth_ring = torch.arange(2 * rings)

    def vertices(self, identity, expression):
        scale = 1 + 0.1 * identity.sum(1).view(-1, 1, 1)
        shift = torch.stack(
            [torch.zeros_like(expression[:, 0]), -0.1 * expression[:, 0], torch.zeros_like(expression[:, 0])], 1
        )
        return torch.tensor(PIVOT) + self.mean * scale + shift[:, None]

    def eye_centres(self, vertices):
        middle, ahead = vertices.mean(1), torch.tensor([[0.05, 0.05, 0.15], [-0.05, 0.05, 0.15]])
        return middle[:, None] + ahead


def anchored_generator():
    torch.manual_seed(0)
    config = replace(SMALL, plane_size=16, neural_rendering_resolution=24)
    return AnchoredGenerator(config, SphereHead()).eval()


def plain_generator():
    torch.manual_seed(0)
    return TriPlaneGenerator(replace(SMALL_PLAIN, neural_rendering_resolution=16)).eval()


def make_head(batch=1):
    return HeadCoefficients(torch.zeros(batch, 2), torch.zeros(batch, 52))


def make_camera(batch=1):
    return orbit(torch.zeros(batch), torch.zeros(batch))


@pytest.fixture
def small():
    return SimpleNamespace(anchored=anchored_generator, plain=plain_generator, head=make_head, camera=make_camera)


@pytest.fixture
def small_generators():
    return {"anchored": anchored_generator, "plain": plain_generator, "camera": make_camera}
