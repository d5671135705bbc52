"""`galatea mesh`: portraits of a run and drawn people become files; what cannot be is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from typer.testing import CliRunner, Result

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.checkpoint import load_generator, save_generator
from galatea.eg3d.generator import TriPlaneGenerator
from galatea.eg3d.provenance import GeneratorFacts
from galatea.inversion.capsule import Capsule
from pipeline.cli import EXIT_USAGE, app
from pipeline.manifest import build_schema, manifest_path, to_table, write_table
from pipeline.storage import Store
from stages.base import Column, Kind
from tests.small_generators import SMALL, SMALL_PLAIN

RESOLUTION = ("--resolution", "24")


def galatea(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def said(result: Result) -> str:
    return " ".join((result.output + result.stderr).split())


def read(path: Path) -> trimesh.Trimesh:
    return trimesh.load(path, process=False, force="mesh")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("generator")
    facts = GeneratorFacts(name="small", kind="anchored", licence="Apache-2.0")
    save_generator(AnchoredGenerator(SMALL), folder, facts)
    return folder


@pytest.fixture(scope="module")
def run(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one inverted portrait and one edit of it, which is wider."""
    loaded, folder = load_generator(generator), tmp_path_factory.mktemp("run")
    store = Store(str(folder))
    store.write("config.yaml", f"invert:\n  generator: {generator}\n".encode())
    for stage, column, name, step in (("invert", "portrait_id", "a_0", 0.0), ("edit", "edit_id", "a_0.wide", 3.0)):
        capsule = Capsule(
            w_plus=loaded.w_avg.expand(loaded.num_ws, -1).clone(),
            camera=torch.zeros(25),
            identity=torch.zeros(loaded.mesh.num_identity),
            identity_offset=step * torch.eye(loaded.mesh.num_identity)[0],
            expression=torch.zeros(52),
            generator="small",
            generator_sha256=loaded.sha256,
        )
        store.write(f"{stage}/files/{name}.safetensors", capsule.to_bytes())
        columns = [Column(column, Kind.STRING, ""), Column("capsule", Kind.FILE, "", suffix=".safetensors")]
        schema = build_schema(stage, column, columns)
        facts = {"status": "done", "error_code": "", "error_message": "", "source_id": "a", "fingerprint": "f"}
        facts |= {"run_seconds": 0.5, "code_version": "0", "models": "[]"}
        row = {column: name, "capsule": f"{stage}/files/{name}.safetensors", **facts}
        write_table(store, manifest_path(stage), [to_table([row], schema)], schema)
    return folder


def test_a_portrait_of_a_run_its_edit_and_its_expression_have_shapes(run: Path, tmp_path: Path) -> None:
    own, edited, opened = tmp_path / "own.glb", tmp_path / "deep" / "edited.ply", tmp_path / "opened.glb"
    for words in ((own,), (edited, "--portrait", "a_0.wide"), (opened, "-e", "jawOpen=1", "--portrait", "a_0")):
        result = galatea("mesh", *words, "--run", run, *RESOLUTION)
        assert result.exit_code == 0, said(result)
    assert "a_0.wide: " in said(galatea("mesh", edited, "--portrait", "a_0.wide", "--run", run, *RESOLUTION))
    shapes = [read(path) for path in (own, edited, opened)]
    assert all(len(shape.vertices) > 500 for shape in shapes)
    assert len({shape.vertices.tobytes() for shape in shapes}) == 3


def test_a_seed_is_a_person(generator: Path, tmp_path: Path) -> None:
    files = [tmp_path / f"{name}.ply" for name in "abc"]
    for file, seed in zip(files, (1, 1, 2), strict=True):
        result = galatea("mesh", file, "--generator", generator, "--seed", seed, *RESOLUTION)
        assert result.exit_code == 0, said(result)
    first, again, other = (file.read_bytes() for file in files)
    assert first == again
    assert np.ptp(read(files[0]).vertices, axis=0).max() <= 1.1  # the box, and a cell around it
    assert first != other


def test_generators_without_a_head_have_shapes_but_no_expressions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_generator(TriPlaneGenerator(SMALL_PLAIN), tmp_path, GeneratorFacts(name="plain", kind="eg3d"))
    file = tmp_path / "head.ply"
    asked = ("mesh", file, "--generator", tmp_path, "--level", "0.33", *RESOLUTION)
    assert "head model" in said(galatea(*asked, "-e", "jawOpen=1"))
    assert not file.exists()
    result = galatea(*asked)
    assert result.exit_code == 0, said(result)
    assert len(read(file).vertices) > 50


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("head.obj",), "ends with .ply or .glb, got 'head.obj'"),
        (("head.ply", "--expression", "jawOpn=0.5"), "jawOpn"),
        (("head.ply", "--expression", "jawOpen"), "ACTION=VALUE"),
        (("head.ply", "--resolution", "2"), "8 to 1024, got 2"),
        (("head.ply", "--portrait", "a_0"), "--run RUN"),
    ],
)
def test_what_cannot_be_is_refused(words: tuple[str, ...], reason: str, tmp_path: Path) -> None:
    result = galatea("mesh", tmp_path / words[0], *words[1:])
    assert result.exit_code == EXIT_USAGE
    assert reason in said(result)
    assert not list(tmp_path.iterdir())


def test_an_unknown_portrait_names_the_known_ones(run: Path, tmp_path: Path) -> None:
    result = galatea("mesh", tmp_path / "head.ply", "--run", run, "--portrait", "b_0")
    assert result.exit_code == EXIT_USAGE
    assert "no inverted portrait 'b_0', only a_0" in said(result)
