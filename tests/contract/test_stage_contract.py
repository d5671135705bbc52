"""What every stage promises, checked on each one that there is; and that Ray changes nothing about its rows."""

import dataclasses
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from PIL import Image

from galatea.eg3d.anchored import AnchoredGenerator
from galatea.eg3d.checkpoint import save_generator
from galatea.eg3d.provenance import GeneratorFacts
from pipeline import ingest
from pipeline.driving import DriverSpec
from pipeline.manifest import BOOKKEEPING, build_schema, read_rows
from pipeline.plan import PARENT, STEPS, URI_COLUMNS
from pipeline.run import RunPlan, run
from pipeline.settings import ExecutorConfig, StorageConfig
from pipeline.stage_catalogue import build_stage, config_classes
from pipeline.storage import Store
from stages.base import Stage
from tests.pipeline.comparing import comparable_rows
from tests.small_generators import SMALL

NAMES = sorted(config_classes())
QUICK: dict[str, dict[str, Any]] = {
    "invert": {"num_candidates": 2, "projection_steps": 1, "tuning_steps": 2, "projection_resolution": 32},
    "edit": {"edits": ("smile",), "image_size": 64},
    "drive": {"fps": 5.0, "max_seconds": 0.6},
    "animate": {"size": 128, "resolution": 32, "preview_size": 64},
}


@pytest.fixture(params=NAMES)
def stage(request: pytest.FixtureRequest) -> Stage:
    return build_stage(request.param, config_classes()[request.param]())


def test_a_stage_says_what_it_is(stage: Stage) -> None:
    names = [column.name for column in stage.produces]

    assert stage.name in STEPS
    assert stage.id_column in names
    assert len(set(names)) == len(names)
    assert not set(names) & {column.name for column in BOOKKEEPING}
    assert all(column.doc for column in stage.produces)
    assert stage.source_id_column in stage.requires
    assert stage.batch_size >= 1
    assert build_schema(stage.name, stage.id_column, stage.produces).names[: len(names)] == names


def test_a_stage_is_made_of_its_frozen_configuration_alone(stage: Stage) -> None:
    config = stage.config  # type: ignore[attr-defined]

    assert dataclasses.is_dataclass(config)
    assert config.__dataclass_params__.frozen
    assert type(stage)(config).config == config  # type: ignore[call-arg,attr-defined]


def test_a_stage_travels_to_other_processes_while_it_is_not_set_up(stage: Stage) -> None:
    assert len(cloudpickle.dumps(stage)) < 100_000


def test_a_stage_gets_what_it_requires_from_the_stages_before_it(stage: Stage) -> None:
    classes = config_classes()
    made = {stage.source_id_column}
    queue = [name for kind in STEPS[stage.name] for name in kind]
    if stage.name == "drive":
        made |= {"driver_id", "kind", "name"}
    while queue:
        name = queue.pop()
        queue += PARENT.get(name, ())
        columns = ingest.COLUMNS if name == "ingest" else ()
        if name in classes:
            columns = build_stage(name, classes[name]()).produces
        elif name != "ingest":
            pytest.skip(f"there is no stage {name}")
        made |= {column.name for column in columns}

    assert set(stage.requires) <= made | set(URI_COLUMNS)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny generator that knows nothing: enough to go through every stage."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("generator")
    facts = GeneratorFacts(name="tiny", kind="anchored", licence="Apache-2.0")
    generator = AnchoredGenerator(SMALL)
    generator.mapping_network.measure(torch.randn(64, generator.z_dim))
    save_generator(generator, folder, facts)
    return str(folder)


@pytest.fixture
def one_thread() -> Any:
    """As many threads as an actor with one CPU has: sums in another order would differ in their last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quick_stage(name: str, checkpoint: str) -> Stage:
    config_class = config_classes()[name]
    known = {field.name for field in dataclasses.fields(config_class)}
    values = {**QUICK.get(name, {}), **({"generator": checkpoint} if "generator" in known else {})}
    return build_stage(name, config_class(**values))


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.usefixtures("weights", "one_thread")
def test_every_stage_makes_the_same_rows_on_ray_as_in_this_process(
    astronaut: np.ndarray, checkpoint: str, ray_address: str, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(astronaut).save(photos / "astronaut.png")
    Image.fromarray(np.full((200, 200, 3), 90, np.uint8)).save(photos / "nobody.png")
    stages = [name for name in STEPS if name in config_classes()]
    stores = {kind: Store(str(tmp_path / kind)) for kind in ("local", "ray")}

    for kind, store in stores.items():
        plan = RunPlan(
            inputs=(str(photos),),
            run=store,
            stages=[quick_stage(name, checkpoint) for name in stages],
            drivers=(DriverSpec("smile", "preset", "smile"),),
            executor=ExecutorConfig(kind=kind),
            storage=StorageConfig(),
        )
        run(plan)

    for name in stages:
        rows = {kind: comparable_rows(store, name) for kind, store in stores.items()}
        assert rows["ray"] == rows["local"], name
        assert "done" in {row["status"] for row in rows["ray"]}, read_rows(stores["ray"], name)
    assert [row["status"] for row in read_rows(stores["ray"], "align")] == ["done", "no_face"]
