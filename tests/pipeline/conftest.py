"""Fixtures for tests of the pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.storage import Store
from tests.pipeline.web_server import WebServer, serving


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A run folder of the test's own; not made yet."""
    return Store(str(tmp_path / "run"))


@pytest.fixture
def web_server() -> Iterator[WebServer]:
    """An HTTP server on this machine."""
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One MLflow store in SQLite for all tests: making its tables takes seconds. Each test has its own experiment."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'mlflow.db'}"
