import os
from pathlib import Path

import pytest

from galatea.errors import StorageError
from pipeline import storage
from pipeline.driving import DriverSpec, driver_requests
from pipeline.loading import RecordLoader, ReplacedInputError, UnreadableInputError
from pipeline.photo_id import photo_id_of
from pipeline.requests import Request
from pipeline.storage import Store
from stages.base import Record
from tests.pipeline.web_server import WebServer


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_WAIT_SECONDS", 0.0)


def photo_loader(tmp_path: Path) -> RecordLoader:
    return RecordLoader(Store(str(tmp_path / "run")), ("photo",), (), {"photo": "uri"}, {})


def photo_request(uri: object, **fields: str) -> Request:
    return Request(str(uri), "", {"uri": str(uri), **fields})


def test_a_file_that_cannot_be_read_costs_its_record_alone(tmp_path: Path, web_server: WebServer) -> None:
    (tmp_path / "good").write_bytes(b"photo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    web_server.statuses |= {"/busy": 503, "/secret": 403}
    local = [tmp_path / name for name in ("gone", "folder", "circle", "pipe")]
    remote = [f"{web_server.url}/busy", f"{web_server.url}/secret", "http://127.0.0.1:9/nobody", "htps://host/scheme"]

    *odd, good = photo_loader(tmp_path).load([photo_request(uri) for uri in (*local, *remote, tmp_path / "good")])

    assert [type(record) for record in odd] == [UnreadableInputError] * 8
    assert f"cannot read {local[0]}: no such file, folder or bucket. It is tried again" in str(odd[0])
    assert isinstance(good, dict)
    assert good["photo"] == b"photo"


def test_many_files_in_a_row_that_cannot_be_read_end_the_stage(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"photo")
    loader = photo_loader(tmp_path)
    gone = [photo_request(tmp_path / f"gone{number}") for number in range(32)]

    for batch in (gone[:16], gone[16:31], [photo_request(tmp_path / "good")], gone[:31]):
        loader.load(batch)
    with pytest.raises(StorageError, match=r"32 files in a row could not be read.*gone31.*Is their storage there"):
        loader.load(gone[31:])


def test_a_file_that_many_records_need_is_one_file(tmp_path: Path, web_server: WebServer) -> None:
    web_server.statuses["/busy"] = 503

    found = photo_loader(tmp_path).load([photo_request(f"{web_server.url}/busy")] * 40)

    assert [type(record) for record in found] == [UnreadableInputError] * 40
    assert web_server.num_requests == 4


def test_a_photo_that_was_replaced_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    photo = tmp_path / "photo"
    request = photo_request(photo, photo_id=photo_id_of(b"old"))

    found: list[Record | Exception] = []
    for content in (b"old", b"new"):
        photo.write_bytes(content)
        found += photo_loader(tmp_path).load([request])

    same, other = found
    assert isinstance(same, dict)
    assert same["photo"] == b"old"
    assert isinstance(other, ReplacedInputError)
    assert f"expected the photo {photo_id_of(b'old')}, got {photo_id_of(b'new')}. Run again" in str(other)


def test_a_driver_that_cannot_be_read_is_asked_for_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    drivers = [DriverSpec("smile", "preset", "smile"), DriverSpec("a", "video", "a", str(tmp_path / "circle.mp4"))]
    drivers.append(DriverSpec("b", "video", "b", "http://127.0.0.1:9/b.mp4"))

    assert [item.source_id for item in driver_requests(drivers, {}).items] == ["smile", "a", "b"]
