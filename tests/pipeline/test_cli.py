"""The command line as a person meets it: messages, exit codes, and nothing done when something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from pipeline.cli import EXIT_INTERRUPTED, EXIT_RUN_ERROR, EXIT_USAGE, Commands, app
from pipeline.executor import RunInterruptedError
from pipeline.words import is_configuration, photo_name
from tests.pipeline.made_up_run import write_run


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALATEA_HOME", str(tmp_path / "home"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 48), "teal").save(folder / "a.png")
    (folder / "broken.jpg").write_bytes(b"")
    return folder


def galatea(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def said(result: Result) -> str:
    return " ".join((result.output + result.stderr).split())


def test_ingest_lists_the_photos_and_goes_on_past_broken_ones(photos: Path, tmp_path: Path) -> None:
    result = galatea("ingest", photos, "--out", tmp_path / "run", "tracking=off")
    assert result.exit_code == 0, said(result)
    assert (tmp_path / "run" / "ingest" / "manifest.parquet").exists()
    assert (tmp_path / "run" / "config.yaml").exists()
    again = galatea("ingest", photos, "--out", tmp_path / "run", "tracking=off")
    assert "Nothing to compute" in again.output


def test_an_unknown_key_is_refused_with_the_nearest_one(photos: Path, tmp_path: Path) -> None:
    result = galatea("run", photos, "--out", tmp_path / "run", "executor.num_actor=2")
    assert result.exit_code == EXIT_USAGE
    assert "'executor.num_actors'" in said(result)
    assert "Traceback" not in said(result)
    assert not (tmp_path / "run").exists()


def test_a_folder_without_an_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no photo")
    result = galatea("ingest", tmp_path / "empty", "--out", tmp_path / "run", "tracking=off")
    assert result.exit_code == EXIT_USAGE
    assert "no photos in" in said(result)


def test_a_missing_input_is_refused(tmp_path: Path) -> None:
    result = galatea("ingest", tmp_path / "nowhere", "--out", tmp_path / "run", "tracking=off")
    assert result.exit_code == EXIT_USAGE
    assert "nowhere" in said(result)


def test_a_missing_driver_is_refused_before_anything_runs(photos: Path, tmp_path: Path, weights: Path) -> None:
    result = galatea("animate", photos / "a.png", "--driver", "gone.mp4", "--out", tmp_path / "run", "tracking=off")
    assert result.exit_code in (EXIT_USAGE, EXIT_RUN_ERROR)
    assert "gone.mp4" in said(result) or "models fetch open" in said(result)
    assert not (tmp_path / "run").exists()


def test_an_unknown_stage_names_the_nearest(tmp_path: Path) -> None:
    result = galatea("stage", "algin", "--out", tmp_path / "run")
    assert result.exit_code == EXIT_USAGE
    assert "'align'" in said(result)


def test_missing_weights_say_how_to_get_them(photos: Path, tmp_path: Path) -> None:
    result = galatea("run", photos, "--out", tmp_path / "run", "tracking=off")
    assert result.exit_code == EXIT_RUN_ERROR
    assert "galatea models fetch open" in said(result)
    assert not (tmp_path / "run").exists()


def test_models_are_listed_with_licence_and_state() -> None:
    result = galatea("models", "list")
    assert result.exit_code == 0
    assert "Apache-2.0" in said(result)
    assert "missing" in said(result)


def test_the_doctor_names_what_is_missing() -> None:
    result = galatea("doctor")
    assert result.exit_code == EXIT_RUN_ERROR
    assert "galatea models fetch open" in said(result)
    assert "torch" in said(result)


def test_the_configuration_is_printed_and_written(tmp_path: Path) -> None:
    result = galatea("config", "executor=local")
    assert result.exit_code == 0
    assert "kind: local" in result.output
    assert "#   executor=local|ray" in result.output
    galatea("config", "executor=local", "--out", tmp_path / "deep" / "config.yaml")
    assert "kind: local" in (tmp_path / "deep" / "config.yaml").read_text()


def test_a_report_of_no_run_is_refused(tmp_path: Path) -> None:
    result = galatea("report", tmp_path)
    assert result.exit_code == EXIT_USAGE
    assert "holds no run" in said(result)


def test_a_report_of_a_folder_with_brackets_is_named_as_it_is_written(tmp_path: Path) -> None:
    folder = tmp_path / "m[" / "x][bold]"
    write_run(folder, num_photos=1)
    result = galatea("report", folder)
    assert result.exit_code == 0, said(result)
    assert f"{folder}/report.html" in result.output


def test_a_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    result = galatea("config", "--out", tmp_path)
    assert result.exit_code == EXIT_RUN_ERROR
    assert "it is a folder, expected a file" in said(result)
    write_run(tmp_path / "run", num_photos=1)
    result = galatea("compare", tmp_path / "run", tmp_path / "run", "--json", tmp_path)
    assert result.exit_code == EXIT_RUN_ERROR
    assert "it is a folder, expected a file" in said(result)


@pytest.mark.parametrize("text", ["1: 2", "true: 2", "align: {3: 4}", "null: 2", "1.5: {a: 1}"])
def test_a_key_of_a_configuration_file_that_is_no_word_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "odd.yaml").write_text(text)
    result = galatea("config", "--config", tmp_path / "odd.yaml")
    assert result.exit_code == EXIT_USAGE
    assert "(bad_config)" in said(result)


@pytest.mark.parametrize("command", ["run", "ingest"])
def test_empty_paths_are_refused_before_anything_is_written(photos: Path, tmp_path: Path, command: str) -> None:
    for words in ((photos, "--out", ""), ("", "--out", tmp_path / "run")):
        result = galatea(command, *words, "tracking=off")
        assert result.exit_code == EXIT_USAGE
        assert "got an empty one" in said(result)
    assert not (tmp_path / "run").exists()
    assert "got an empty one" in said(galatea("report", ""))
    assert "got an empty one" in said(galatea("compare", "", ""))


def test_a_run_folder_that_is_a_file_is_refused(photos: Path) -> None:
    result = galatea("ingest", photos, "--out", photos / "a.png", "tracking=off")
    assert result.exit_code == EXIT_RUN_ERROR
    assert "it is a file, expected a folder" in said(result)


def test_a_run_folder_whose_name_is_not_text_is_refused(photos: Path) -> None:
    result = galatea("ingest", photos, "--out", str(photos) + "\udce9", "tracking=off")
    assert result.exit_code == EXIT_USAGE
    assert r"photos\xe9 is not UTF-8" in said(result)


def test_a_file_name_that_is_not_text_costs_only_its_photo(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.jpg").rename(str(photos / "caf\udce9.jpg"))
    result = galatea("ingest", photos, "--out", tmp_path / "run", "tracking=off")
    assert result.exit_code == 0, said(result)
    assert galatea("report", tmp_path / "run").exit_code == 0
    assert r"caf\xe9.jpg" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize(
    ("word", "is_it"),
    [
        ("animate.fps=12", True),
        ("executor=local", True),
        ("storage.options.endpoint_url=http://host:9000", True),
        ("+storage.options.name=" + "x" * 300, True),
        ("https://host/p.jpg?signature=abc", False),
        ("s3://bucket/kind=photo/a.jpg", False),
        ("photo.jpg", False),
    ],
)
def test_configuration_is_told_from_photos(word: str, is_it: bool) -> None:
    assert is_configuration(word) is is_it


@pytest.mark.parametrize(
    ("place", "name"),
    [
        ("photos/grandma.1950.jpg", "grandma.1950"),
        ("https://host/albums/uncle%20bob.png?size=big", "uncle-20bob"),
        ("s3://bucket/a b.jpg", "a-b"),
        ("photos/*", "photo"),
    ],
)
def test_a_folder_is_named_after_its_first_photo(place: str, name: str) -> None:
    assert photo_name(place) == name


def test_a_file_with_an_equals_sign_is_a_photo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("executor=local").touch()
    assert not is_configuration("executor=local")


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RunInterruptedError("stopped by SIGINT")])
def test_an_interrupt_says_how_to_go_on(stop: BaseException) -> None:
    stopping = typer.Typer(cls=Commands)

    @stopping.callback()
    def _callback() -> None: ...

    @stopping.command()
    def go() -> None:
        raise stop

    result = CliRunner().invoke(stopping, ["go"])
    assert result.exit_code == EXIT_INTERRUPTED
    assert "say the same again" in said(result)
