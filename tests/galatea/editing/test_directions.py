"""Edits change what they name, by as much as they are asked to, and nothing else."""

from types import SimpleNamespace

import pytest
import torch

from galatea.editing.directions import EDITS, UNEDITED, AttributeEdit, apply_edit, edit_names, w_direction
from galatea.errors import ConfigError, WeightsError
from galatea.inversion.capsule import Capsule
from galatea.morphable.actions import ACTION_INDEX


@pytest.fixture
def generator(small: SimpleNamespace):
    """A generator whose typical people have hair that grows greyer with age; its code: age, hair colour."""
    made = small.anchored()
    draw = torch.Generator().manual_seed(0)
    age = torch.rand(300, 1, generator=draw)
    made.mapping_network.measure(torch.cat([age, 0.2 + 0.6 * age.expand(-1, 3)], dim=1))
    return made


def capsule_of(generator) -> Capsule:
    return Capsule(
        w_plus=torch.zeros(generator.num_ws, generator.w_dim),
        camera=torch.zeros(25),
        identity=torch.zeros(2),
        expression=torch.full((52,), 0.5),
        generator="small",
        generator_sha256=generator.sha256,
    )


def test_the_unedited_portrait_carries_no_offsets(generator) -> None:
    edited = apply_edit(generator, capsule_of(generator), UNEDITED)
    assert edited.edit == "none"
    assert edited.w_offset is None
    assert edited.expression_offset is None


def test_a_smile_moves_only_the_expression_and_stays_within_range(generator) -> None:
    edited = apply_edit(generator, capsule_of(generator), "smile", strength=2.0)
    assert edited.w_offset is None
    assert edited.identity_offset is None
    shown = edited.expression + edited.expression_offset
    assert shown.max() <= 1
    assert shown[ACTION_INDEX["mouthSmileLeft"]] == 1
    assert shown[ACTION_INDEX["jawOpen"]] == 0.5


def test_what_goes_with_a_field_in_the_population_follows_it(generator) -> None:
    alone = w_direction(generator, AttributeEdit(code={"age": 1.0}))
    along = w_direction(generator, AttributeEdit(code={"age": 1.0}, along=("hair_colour",)))
    mean, deviation = generator.code_statistics
    changed = mean.clone()
    changed[0] += deviation[0]
    changed[1:] += 0.6 * deviation[0]
    expected = generator.mapping(changed[None])[0] - generator.mapping(mean[None])[0]
    torch.testing.assert_close(along, expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(alone, along)


def test_a_colour_is_set_and_not_added(generator) -> None:
    edit = AttributeEdit(colour={"hair_colour": (1.0, 0.0, 0.0)})
    mean, _ = generator.code_statistics
    red = torch.cat([mean[:1], torch.tensor([1.0, 0.0, 0.0])])
    expected = generator.mapping(red[None])[0] - generator.mapping(mean[None])[0]
    torch.testing.assert_close(w_direction(generator, edit), expected)


def test_an_unknown_edit_is_refused_with_the_known_names(generator) -> None:
    with pytest.raises(ConfigError, match="expected one of none, older, smile"):
        apply_edit(generator, capsule_of(generator), "younger-ish")


def test_a_generator_without_a_code_is_refused(small: SimpleNamespace, generator) -> None:
    with pytest.raises(ConfigError, match="semantic code"):
        apply_edit(small.plain(), capsule_of(generator), "smile")


def test_a_capsule_of_another_generator_is_refused(generator) -> None:
    foreign = Capsule(**(vars(capsule_of(generator)) | {"generator_sha256": "f" * 64}))
    with pytest.raises(WeightsError, match="was made with generator"):
        apply_edit(generator, foreign, "smile")


def test_every_edit_changes_something() -> None:
    assert edit_names()[0] == UNEDITED
    for name in edit_names()[1:]:
        edit = EDITS[name]
        assert edit.is_semantic or edit.phenotype or edit.expression, name
