"""An analytic portrait: a painted sphere at the head's pivot, for which every map is known by formula."""

import math
from types import SimpleNamespace

import pytest
import torch

from galatea.cameras import PIVOT
from galatea.eg3d.posing import pose_rays

RADIUS = 0.22


def sphere_view(pose, size, radius=RADIUS):
    """Return the layer (premultiplied RGB and opacity, 0..1), depth and opacity of the sphere in a posed view."""
    rays = pose_rays(pose, size)
    pivot = torch.tensor(PIVOT)
    offset = rays.origins - pivot
    along = (offset * rays.directions).sum(-1)
    discriminant = along.square() - offset.square().sum(-1) + radius**2
    depth = -along - discriminant.clamp_min(0).sqrt()
    points = offset + depth[..., None] * rays.directions
    alpha = (discriminant > 0).float()[..., None]
    layer = torch.cat([paint(points / radius) * alpha, alpha], -1)
    batch = depth.shape[0]
    return (
        layer.transpose(1, 2).reshape(batch, 4, size, size),
        depth.reshape(batch, 1, size, size),
        alpha.reshape(batch, 1, size, size),
    )


def paint(directions):
    """Colour of the sphere by unit direction: smooth, and different everywhere."""
    return torch.stack([torch.sin(6 * directions[..., i] + i) * 0.4 + 0.5 for i in range(3)], -1)


def sphere_mesh(rings=48, radius=RADIUS):
    """Return vertices (1, V, 3) and counter-clockwise triangles of the sphere."""
    theta = torch.linspace(0.02, math.pi - 0.02, rings)
    phi = torch.arange(2 * rings) / (2 * rings) * 2 * math.pi
    t, p = torch.meshgrid(theta, phi, indexing="ij")
    directions = torch.stack([t.sin() * p.sin(), t.cos(), t.sin() * p.cos()], -1).reshape(-1, 3)
    row, column = torch.meshgrid(torch.arange(rings - 1), torch.arange(2 * rings), indexing="ij")
    a = row * 2 * rings + column
    b = row * 2 * rings + (column + 1) % (2 * rings)
    lower = 2 * rings
    faces = torch.cat([torch.stack([a, a + lower, b], -1), torch.stack([b, a + lower, b + lower], -1)]).reshape(-1, 3)
    return (torch.tensor(PIVOT) + radius * directions)[None], faces


@pytest.fixture
def sphere():
    return SimpleNamespace(view=sphere_view, mesh=sphere_mesh, radius=RADIUS)
