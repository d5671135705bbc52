import os
from pathlib import Path

from galatea.errors import InputError
from pipeline.driving import DriverSpec, driver_requests
from pipeline.loading import RecordLoader
from pipeline.requests import Request
from pipeline.storage import Store


def test_a_file_that_cannot_be_read_costs_its_record_alone(tmp_path: Path) -> None:
    (tmp_path / "good").write_bytes(b"photo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle").symlink_to("circle")
    os.mkfifo(tmp_path / "pipe")
    names = ["gone", "folder", "circle", "pipe", "good"]
    loader = RecordLoader(Store(str(tmp_path / "run")), ("photo",), (), {"photo": "uri"}, {})

    *odd, good = loader.load([Request(name, "", {"uri": str(tmp_path / name)}) for name in names])

    assert [type(record) for record in odd] == [InputError] * 4
    assert isinstance(good, dict)
    assert good["photo"] == b"photo"


def test_a_driver_that_cannot_be_read_is_asked_for_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "circle.mp4").symlink_to("circle.mp4")
    drivers = [DriverSpec("smile", "preset", "smile"), DriverSpec("a", "video", "a", str(tmp_path / "circle.mp4"))]

    assert [item.source_id for item in driver_requests(drivers, {}).items] == ["smile", "a"]
