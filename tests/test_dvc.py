"""The DVC pipeline says what the command line and the configuration know."""

from __future__ import annotations

import configparser
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from galatea.weights import BUILT_IN
from pipeline.config import compose, to_values
from pipeline.fingerprint import source_files
from pipeline.stage_catalogue import STAGES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pipeline() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
    return document


def test_dvc_reads_the_pipeline() -> None:
    dvc = Path(sys.executable).parent / "dvc"
    answer = subprocess.run([str(dvc), "stage", "list"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert {line.split()[0] for line in answer.stdout.splitlines()} >= {"ingest", *STAGES, "report"}


def test_it_runs_every_stage_with_its_part_of_the_configuration(pipeline: dict[str, Any]) -> None:
    overrides = next(entry["overrides"] for entry in pipeline["vars"] if "overrides" in entry)
    known = to_values(compose(overrides.split()))
    for name in STAGES:
        stage = pipeline["stages"][name]
        assert f"galatea stage {name} " in stage["cmd"]
        [params] = [keys for entry in stage["params"] for keys in entry.values()]
        assert name in params
        assert set(params) <= set(known)


def test_what_it_depends_on_exists(pipeline: dict[str, Any]) -> None:
    files = [dep for stage in pipeline["stages"].values() for dep in stage["deps"] if not dep.startswith("${")]
    assert [file for file in files if not (ROOT / file).exists()] == []


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_all_code_and_weights_that_make_its_rows(pipeline: dict[str, Any], name: str) -> None:
    deps = [ROOT / dep for dep in pipeline["stages"][name]["deps"] if not dep.startswith("${")]
    used = [*source_files(f"stages.{name}").values(), *BUILT_IN.iterdir()]
    assert [file for file in used if not {file, *file.parents} & set(deps)] == []


def test_compiled_python_is_no_dependency() -> None:
    assert "__pycache__" in (ROOT / ".dvcignore").read_text().split()


def test_metrics_of_a_commit_are_kept(pipeline: dict[str, Any]) -> None:
    [metrics] = pipeline["stages"]["report"]["metrics"]
    assert metrics == "${run}/metrics.json"


def test_it_makes_the_same_run_as_the_demo(pipeline: dict[str, Any]) -> None:
    overrides = next(entry["overrides"] for entry in pipeline["vars"] if "overrides" in entry)
    settings = re.search(r"^DEMO_SETTINGS := (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert settings is not None
    assert set(settings[1].split()) == set(overrides.split())


def test_nothing_is_sent_anywhere() -> None:
    config = configparser.ConfigParser()
    config.read_string(re.sub(r"^\s+", "", (ROOT / ".dvc" / "config").read_text(), flags=re.MULTILINE))
    assert config["core"]["analytics"] == "false"
    assert not any(section.startswith("'remote") for section in config.sections())
