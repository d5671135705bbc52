"""The head model: linear, symmetric, in EG3D's units, with actions that do what their names say."""

import subprocess
import sys

import pytest
import torch

from galatea.errors import ConfigError
from galatea.morphable.baking import STANDARD_POINTS, lid_gap
from galatea.morphable.head import HeadCoefficients, HeadModel, vertex_normals


@pytest.fixture(scope="module")
def model() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def people(model: HeadModel) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    phenotypes = torch.full((32, 11), 0.5)
    phenotypes[:, 1] = torch.linspace(0.65, 1.0, 32)
    return model.sample_identity(phenotypes, generator)


def action(model: HeadModel, **values: float) -> torch.Tensor:
    row = torch.zeros(1, 52)
    for name, value in values.items():
        row[0, model.action_names.index(name)] = value
    return row


def mouth_opening(model: HeadModel, vertices: torch.Tensor) -> torch.Tensor:
    rest = model.mean[model.mouth_ring]
    central = rest[:, 0].abs() < 0.02
    upper = model.mouth_ring[central & (rest[:, 1] >= rest[central, 1].mean())]
    lower = model.mouth_ring[central & (rest[:, 1] < rest[central, 1].mean())]
    return vertices[:, upper, 1].mean(1) - vertices[:, lower, 1].mean(1)


def test_shapes_agree(model: HeadModel) -> None:
    vertices = model.vertices(torch.zeros(3, model.num_identity), torch.zeros(3, 52))
    assert vertices.shape == (3, model.num_vertices, 3)
    assert model.uv.shape == model.source_uv.shape == (*model.faces.shape, 2)
    assert int(model.faces.max()) < model.num_vertices
    assert model.num_identity == 100
    assert len(model.action_names) == len(set(model.action_names)) == 52


def test_vertices_are_linear_in_both_coefficients(model: HeadModel, people: torch.Tensor) -> None:
    expression = torch.rand(2, 52, generator=torch.Generator().manual_seed(0))
    first, second = (model.vertices(people[i : i + 1], expression[i : i + 1]) - model.mean for i in range(2))
    both = model.vertices(people[:1] + people[1:2], expression[:1] + expression[1:]) - model.mean
    torch.testing.assert_close(both, first + second, atol=1e-5, rtol=1e-4)


def test_gradients_reach_the_coefficients(model: HeadModel) -> None:
    identity = torch.zeros(1, model.num_identity, requires_grad=True)
    expression = torch.zeros(1, 52, requires_grad=True)
    model.vertices(identity, expression).square().sum().backward()
    assert (identity.grad != 0).all()
    assert (expression.grad != 0).all()


def test_mirrored_coefficients_give_the_mirrored_head(model: HeadModel, people: torch.Tensor) -> None:
    expression = torch.rand(4, 52, generator=torch.Generator().manual_seed(1))
    head = HeadCoefficients(people[:4], expression)
    vertices = model.vertices(head.identity, head.expression)
    mirrored = head.mirrored(model)
    flipped = vertices[:, model.mirror_vertices] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(model.vertices(mirrored.identity, mirrored.expression), flipped, atol=2e-4, rtol=0)


def test_the_average_head_has_human_size_and_stands_on_the_standard_points(model: HeadModel) -> None:
    centres = model.eye_centres(model.mean[None])[0]
    assert centres[0, 0] > 0 > centres[1, 0]
    assert (centres[0] - centres[1]).norm() == pytest.approx(0.063 * 2.7, rel=0.08)
    lids = torch.stack([model.mean[ring].mean(0) for ring in (model.right_lid_ring, model.left_lid_ring)])
    assert torch.dist(lids, torch.from_numpy(STANDARD_POINTS[:2]).float(), p=float("inf")) < 0.03


def test_blink_of_one_closes_every_eye_and_half_leaves_it_open(model: HeadModel, people: torch.Tensor) -> None:
    rest, mean = model.vertices(people, torch.zeros(32, 52)).numpy(), model.mean.numpy()
    for side, ring in (("Left", model.left_lid_ring), ("Right", model.right_lid_ring)):
        neutral = lid_gap(rest, mean, ring.numpy())
        offsets = model.action_basis[model.action_names.index(f"eyeBlink{side}")].numpy()
        closed, half = (lid_gap(rest + c * offsets, mean, ring.numpy()) for c in (1.0, 0.5))
        assert (neutral > 0.01).all()
        assert (half > 0.2 * neutral).all()
        assert abs(float((closed / neutral).mean())) < 0.1
        assert (closed / neutral < 0.35).all()


def test_jaw_open_opens_the_mouth_and_lowers_the_lower_teeth(model: HeadModel) -> None:
    identity = torch.zeros(1, model.num_identity)
    closed = model.vertices(identity, torch.zeros(1, 52))
    opened = model.vertices(identity, action(model, jawOpen=1.0))
    assert mouth_opening(model, closed) < 0.01
    assert mouth_opening(model, opened) > 0.06
    teeth = torch.unique(model.faces[model.part == model.part_names.index("teeth")])
    drop = (closed - opened)[0, teeth, 1]
    assert (drop > 0.02).float().mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(("name", "axis", "sign"), [("Up", 1, 1), ("Down", 1, -1), ("Out", 0, 1), ("In", 0, -1)])
def test_eyes_look_where_they_are_told(model: HeadModel, name: str, axis: int, sign: int) -> None:
    offsets = model.action_basis[model.action_names.index(f"eyeLook{name}Left")]
    eye = torch.unique(model.faces[model.part == model.part_names.index("eye")])
    eye = eye[model.mean[eye, 0] > 0]
    front = eye[model.mean[eye, 2] > model.mean[eye, 2].max() - 0.005]
    assert (sign * offsets[front, axis]).min() > 0.005


def test_age_and_gender_directions_point_apart(model: HeadModel) -> None:
    age, gender = model.phenotype_direction("age"), model.phenotype_direction("gender")
    assert age.norm() > 1
    assert gender.norm() > 0.5
    assert torch.cosine_similarity(age, gender, dim=0).abs() < 0.6
    with pytest.raises(ConfigError, match="hat size"):
        model.phenotype_direction("hat size")


def test_the_atlas_is_mostly_face_without_overlap(model: HeadModel) -> None:
    edges = model.uv[:, 1:] - model.uv[:, :1]
    area = 0.5 * (edges[:, 0, 0] * edges[:, 1, 1] - edges[:, 0, 1] * edges[:, 1, 0])
    centre = model.mean[model.faces].mean(1)
    face = (model.part == 0) & (centre[:, 1] > -0.27) & (centre[:, 1] < 0.2) & (centre[:, 2] > 0.05)
    assert area.abs()[face].sum() > 0.35
    assert area.abs().sum() < 1
    assert ((model.uv > 0) & (model.uv < 1)).all()


def test_normals_of_an_octahedron_are_its_vertices() -> None:
    vertices = torch.cat([torch.eye(3), -torch.eye(3)])
    faces = [(x, 1 + 3 * y, 2 + 3 * z) for x in (0, 3) for y in (0, 1) for z in (0, 1)]
    # Every reflection turns a triangle over.
    outwards = [face if sum(index > 2 for index in face) % 2 == 0 else face[::-1] for face in faces]
    torch.testing.assert_close(vertex_normals(vertices[None], torch.tensor(outwards))[0], vertices)


def test_normals_point_outwards_and_have_unit_length(model: HeadModel) -> None:
    normals = model.vertex_normals(model.mean[None])[0]
    skin = torch.unique(model.faces[model.part == 0])
    torch.testing.assert_close(normals[skin].norm(dim=-1), torch.ones(len(skin)))
    tip = skin[model.mean[skin, 2].argmax()]
    assert normals[tip, 2] > 0.7


def test_loading_a_baked_model_imports_neither_anny_nor_warp(model: HeadModel) -> None:
    code = (
        "import sys; from galatea.morphable.head import HeadModel; HeadModel.load();"
        "print(sorted({'anny', 'warp'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
