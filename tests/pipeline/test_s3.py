"""The chain with photos and run folder on a real S3 protocol server over HTTP."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.manifest import read_rows
from pipeline.run import run
from pipeline.settings import ExecutorConfig
from pipeline.storage import Store
from pipeline.storage_errors import AccessError, MissingFileError
from tests.pipeline.comparing import comparable_rows
from tests.pipeline.small_chain import CHAIN, DRIVERS, photo_bytes, plan_chain, write_photos


@pytest.fixture
def bucket(s3_options: dict[str, Any], request: pytest.FixtureRequest) -> Store:
    return Store(f"s3://archive/{request.node.name}", s3_options)


def upload(photos: Path, bucket: Store) -> None:
    for path in photos.iterdir():
        bucket.write(f"photos/{path.name}", path.read_bytes())


@pytest.mark.usefixtures("ray_address")
def test_the_chain_on_a_bucket_makes_the_rows_that_it_makes_on_a_disk(bucket: Store, tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos")
    upload(photos, bucket)
    here, there = Store(str(tmp_path / "run")), bucket.child("run")

    settings = {"drivers": DRIVERS[:1], "executor": ExecutorConfig(kind="ray")}

    run(plan_chain([str(photos)], here, drivers=DRIVERS[:1]))
    result = run(plan_chain([bucket.locate("photos")], there, **settings))
    again = run(plan_chain([bucket.locate("photos")], there, **settings))

    assert result.stages["animate"].status == {"done": 8}
    assert again.num_computed == 0
    for name in (make.name for make in CHAIN):
        rows = [comparable_rows(store, name) for store in (here, there)]
        for row in (row for both in rows for row in both):
            row.pop("uri", None)
            row["error_message"] = bool(row["error_message"])
        assert rows[0] == rows[1]


def test_a_prefix_a_glob_and_a_list_name_the_same_photos(bucket: Store, tmp_path: Path) -> None:
    upload(write_photos(tmp_path / "photos"), bucket)
    names = [entry.path for entry in bucket.files("photos")]
    bucket.write("list.csv", "\n".join(["uri", *(bucket.locate(name) for name in names)]).encode())
    found = []

    for number, item in enumerate(("photos", "photos/*.png", "list.csv")):
        store = Store(str(tmp_path / str(number)))
        run(plan_chain([bucket.locate(item)], store, stages=[], storage=plan_storage(bucket)))
        found.append([row["uri"] for row in read_rows(store, "ingest")])

    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 4


def test_a_key_may_hold_what_is_a_sign_in_urls(bucket: Store, tmp_path: Path) -> None:
    upload(write_photos(tmp_path / "photos"), bucket)
    bucket.write("photos/a::b/IMG::1.png", photo_bytes(50, tmp_path))
    store = Store(str(tmp_path / "run"))

    run(plan_chain([bucket.locate("photos")], store, drivers=(), storage=plan_storage(bucket)))

    assert bucket.locate("photos/a::b/IMG::1.png") in [row["uri"] for row in read_rows(store, "align")]


def plan_storage(bucket: Store) -> Any:
    return plan_chain([], bucket).storage


def test_an_object_that_is_not_finished_is_not_there(bucket: Store) -> None:
    large = b"x" * (6 << 20)

    with pytest.raises(ZeroDivisionError):
        write_and_fail(bucket, large)
    assert bucket.files() == []

    with bucket.writing("large") as file:
        file.write(large)
        file.write(large)
    assert bucket.read("large") == large + large


def write_and_fail(bucket: Store, data: bytes) -> None:
    with bucket.writing("large") as file:
        file.write(data)
        raise ZeroDivisionError


def test_a_missing_bucket_is_told_before_any_work(s3_options: dict[str, Any]) -> None:
    with pytest.raises(MissingFileError, match="no such file, folder or bucket"):
        Store("s3://no-such-bucket/run", s3_options).check_writable()


def test_a_server_that_is_not_there_is_told_after_a_few_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage._FIRST_WAIT_SECONDS", 0.0)
    options = {
        "endpoint_url": "http://127.0.0.1:9",
        "key": "test",
        "secret": "test",
        "config_kwargs": {"retries": {"max_attempts": 0}},
    }

    with pytest.raises(Exception, match="cannot write s3://archive/run") as caught:
        Store("s3://archive/run", options).check_writable()

    assert caught.value.code in {"storage", AccessError.code}  # type: ignore[attr-defined]
