from __future__ import annotations

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from galatea.errors import ConfigError
from pipeline.config import CONF_FOLDER, compose, presets, to_flat, to_yaml, without_secret


def test_presets_files_and_values_are_layered(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("executor: {num_actors: 3, max_in_flight: 5}\n")
    config = compose(["executor=local", "executor.max_in_flight=7", "drivers=[blink,nod]"], file)
    assert (config.executor.kind, config.executor.num_actors, config.executor.max_in_flight) == ("local", 3, 7)
    assert config.drivers == ("blink", "nod")


def test_every_preset_composes() -> None:
    for group, names in presets().items():
        for name in names:
            compose([f"{group}={name}"])


def test_quick_is_less_work_than_usual_and_full_is_more() -> None:
    quick, usual, full = (compose([f"invert={name}"]).stages["invert"] for name in ("quick", "default", "full"))
    work = [
        (c.tuning_steps * c.tuning_resolution**2, c.projection_steps, c.num_candidates) for c in (quick, usual, full)
    ]
    assert all(a <= b for less, more in pairwise(work) for a, b in zip(less, more, strict=True))
    assert work[0] != work[1] != work[2]


def test_the_printed_configuration_reads_back_as_itself(tmp_path: Path) -> None:
    config = compose(["executor=local", "tracking=off", "report.max_portraits=3"])
    file = tmp_path / "config.yaml"
    file.write_text(to_yaml(config))
    assert compose(file=file) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("executor.num_actor=3", ("executor.num_actor", "executor.num_actors")),
        ("num_actors=3", ("executor.num_actors",)),
        ("executr=local", ("executr", "executor")),
        ("executor=locl", ("locl", "executor=local")),
        ("executor.max_in_flight=0", ("executor.max_in_flight", "1 or more")),
        ("executor.num_actors=many", ("executor.num_actors", "whole number")),
        ("executor.device=tpu", ("executor.device", "cuda")),
        ("executor.device=cuda:1", ("executor.device", "executor.kind=local")),
        ("executor.gpus_per_actor=1.5", ("executor.gpus_per_actor", "whole")),
        ("invert.tuning_steps=-1", ("invert.tuning_steps", "0 to")),
        ("invert.projection_steps=-1", ("invert.projection_steps", "0 to")),
        ("animate.batch_frames=0", ("animate.batch_frames", "1 to")),
        ("animate.transfer_steps=-1", ("animate.transfer_steps", "1 to")),
        ("animate.resolution=4", ("animate.resolution", "0 or at least 16")),
        ("animate.size=65", ("animate.size", "even")),
        ("edit.generator=''", ("edit.generator", "empty")),
        ("executor.num_actors=1,2", ("swept",)),
        ("~executor", ("removed",)),
        ("executor", ("executor", "GROUP=PRESET")),
        ("drivers=smile", ("drivers", "[smile,turn]")),
        ("tracking.mode=perhaps", ("tracking.mode", "on or off")),
        ("faces.pack=closed", ("faces.pack", "insightface")),
        ("storage.max_photo_pixels=0", ("storage.max_photo_pixels",)),
        ("report.max_megabytes=${nowhere}", ("nowhere",)),
    ],
)
def test_a_wrong_override_is_refused_and_named(override: str, words: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError) as caught:
        compose([override])
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("text", ["executor: {nun_actors: 3}", "- a\n- b", "executor: [", "executor: 3"])
def test_a_wrong_file_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "wrong.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError):
        compose(file=file)
    with pytest.raises(ConfigError, match=r"missing\.yaml"):
        compose(file=tmp_path / "missing.yaml")


def test_a_file_is_read_as_utf_8_whatever_the_machine_speaks(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("drivers: [Grüße.mp4]\n", encoding="utf-8")
    program = "import sys; from pipeline.config import compose; print(ascii(compose(file=sys.argv[1]).drivers))"
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, "-c", program, str(tmp_path / "mine.yaml")]
    answer = subprocess.run(command, env=plain, cwd=CONF_FOLDER.parent, capture_output=True, text=True, check=False)
    assert answer.stdout.strip() == ascii(("Grüße.mp4",)), answer.stderr


def test_credentials_are_used_but_never_shown(tmp_path: Path) -> None:
    config = compose(["storage.options.secret=hunter2", "storage.options.endpoint_url=http://store"])
    assert config.storage.options["secret"] == "hunter2"  # noqa: S105 - made up
    assert "hunter2" not in to_yaml(config)
    assert "hunter2" not in str(to_flat(config))
    assert to_flat(config)["storage.options.endpoint_url"] == "http://store"
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert "secret" not in compose(file=tmp_path / "config.yaml").storage.options


@pytest.mark.parametrize(
    "override",
    [
        "storage.options.password=41972",
        "storage.options.client_kwargs.connection_string='AccountName=x;AccountKey=41972'",
        "tracking.uri=postgresql://bob:41972@db/ml",
        "drivers=['https://bob:41972@films.example/a.mp4']",
    ],
)
def test_no_shape_of_a_credential_is_shown(tmp_path: Path, override: str) -> None:
    config = compose([override])
    assert "41972" not in to_yaml(config)
    assert "41972" not in str(to_flat(config))
    assert "41972" not in without_secret(override)
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert "hidden" not in to_yaml(compose(file=tmp_path / "config.yaml"))
