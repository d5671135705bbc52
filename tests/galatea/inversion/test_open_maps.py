"""What a photo may change: not the inside of the mouth, and nothing before the lower face."""

import torch
import torch.nn.functional as F

from galatea.eg3d.carry import VIEWS
from galatea.eg3d.checkpoint import load_generator
from galatea.inversion.open_maps import open_planes, open_texture


def test_the_inside_of_the_mouth_keeps_the_generator_s_own_texture(small):
    mesh = small.anchored().mesh
    assert open_texture(mesh, 16).min() == 1
    assert open_texture(None, 16).min() == 1
    is_low = mesh.uv[..., 1].amax(1) < 0.3
    mesh.part[is_low] = mesh.part_names.index("tongue")
    weight = open_texture(mesh, 20)
    assert weight[0, 15:].max() == 0
    assert weight[0, :13].min() == 1


def test_planes_are_closed_before_the_lower_face_and_open_for_hair():
    generator = load_generator("builtin", "cpu")
    planes = open_planes(generator, 32)
    mesh, box = generator.mesh, generator.config.static_box
    vertices = mesh.vertices(torch.zeros(1, mesh.num_identity), torch.zeros(1, 52))[0]
    crown = vertices[vertices[:, 1].argmax()]
    eyes = mesh.eye_centres(vertices[None])[0].mean(0)
    mouth = vertices[mesh.faces[mesh.part == mesh.part_names.index("teeth")].flatten()].mean(0)
    behind_ears = eyes - torch.tensor([0.0, 0.05, 0.25])

    def read(point, name):
        index = [view.name for view in VIEWS].index(name)
        at = box.enter(point)[[VIEWS[index].column_axis, VIEWS[index].row_axis]]
        return F.grid_sample(
            planes[index][None], at[None, None, None], align_corners=False, padding_mode="border"
        ).item()

    assert [read(mouth, name) for name in ("front", "right", "left", "top")] == [0, 0, 0, 1]
    assert [read(crown, name) for name in ("front", "right", "left", "top")] == [1, 1, 1, 1]
    assert read(behind_ears, "right") == read(behind_ears, "left") == 1
