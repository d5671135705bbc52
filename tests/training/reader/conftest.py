"""The head model and its labels, baked once."""

import pytest

from galatea.morphable.head import HeadModel
from training.reader.labels import LabelModel, bake_labels


@pytest.fixture(scope="session")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="session")
def labels(head: HeadModel) -> LabelModel:
    return bake_labels(head)
