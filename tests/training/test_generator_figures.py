"""What generators start from and are measured by, where the answer is known."""

import torch
import torch.nn.functional as F

from galatea.cameras import orbit
from galatea.eg3d.mapping import FullyConnectedLayer
from training.appearance import fit_readout
from training.distribution import frechet_distance
from training.groups import groups_of
from training.sheets import depth_normals


def test_a_readout_finds_a_linear_relation():
    draw = torch.Generator().manual_seed(0)
    w, truth = torch.randn(500, 12, generator=draw), torch.randn(3, 12, generator=draw)
    layer = FullyConnectedLayer(12, 5)
    fit_readout(layer, w, w @ truth.T + 0.5)
    assert torch.allclose(layer(w)[:, :3], w @ truth.T + 0.5, atol=0.05)


def test_frechet_distance_is_zero_for_the_same_and_grows_with_blur():
    draw = torch.Generator().manual_seed(0)
    truth = F.interpolate(torch.rand(24, 3, 16, 16, generator=draw), (64, 64), mode="nearest")
    blurred = [F.avg_pool2d(truth, size, 1, size // 2) for size in (3, 9)]
    distances = [frechet_distance(images, truth) for images in (truth, *blurred)]
    assert abs(distances[0]) < 1e-6
    assert 0.01 < distances[1] < distances[2]


def test_a_plane_across_the_view_has_normals_towards_the_camera():
    label = orbit(torch.zeros(1), torch.zeros(1))
    distance = float(label[0, 11])
    size = 32
    steps = (torch.arange(size) + 0.5) / size - 0.5
    x, y = torch.meshgrid(steps / label[0, 16], steps / label[0, 20], indexing="xy")
    depth = (distance * (1 + x**2 + y**2).sqrt())[None, None]
    normals = depth_normals(depth, torch.ones_like(depth), label)
    assert torch.allclose(normals[0, :, 8:24, 8:24].mean((1, 2)), torch.tensor([0.0, 0.0, 1.0]), atol=0.02)


def test_everybody_belongs_to_one_group_of_a_kind():
    fields = {
        "gender": (0, 1),
        "age": (1, 2),
        "african": (2, 3),
        "asian": (3, 4),
        "caucasian": (4, 5),
        "skin_color": (5, 8),
    }
    codes = torch.rand(50, 8, generator=torch.Generator().manual_seed(0))
    groups = groups_of(codes, fields)
    kinds = (("women", "men"), ("old", "not old"), ("dark skin", "medium skin", "light skin"))
    kinds += (tuple(name for name in groups if name.startswith("mostly")),)
    assert sum(len(kind) for kind in kinds) == len(groups)
    for kind in kinds:
        assert (sum(groups[name].int() for name in kind) == 1).all()
    codes[0] = torch.tensor([0.9, 0.95, 0.1, 0.2, 0.9, 0.9, 0.8, 0.7])
    assert [name for name, chosen in groups_of(codes, fields).items() if chosen[0]] == [
        "women", "old", "mostly caucasian", "light skin"
    ]  # fmt: skip
