import errno
import json
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

from galatea.errors import ConfigError, StorageError
from pipeline import storage
from pipeline.ingest import ingest
from pipeline.manifest import read_rows
from pipeline.settings import StorageConfig
from pipeline.storage import Store
from pipeline.storage_errors import AccessError
from tests.pipeline.failing_disk import FailingFileSystem
from tests.pipeline.web_server import WebServer

CONFIG = StorageConfig()


class RefusingFileSystem(LocalFileSystem):
    """Refuses to read what it is told to, and lists it all the same."""

    protocol = "refusing"
    refusals: ClassVar[dict[str, OSError]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("refusing://"))

    @classmethod
    @contextmanager
    def refusing(cls, name: str, error: OSError) -> Iterator[None]:
        cls.refusals[name] = error
        try:
            yield
        finally:
            del cls.refusals[name]

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        error = self.refusals.get(Path(path).name)
        if error is not None:
            raise error
        return super().cat_file(path, *args, **kwargs)


fsspec.register_implementation("refusing", RefusingFileSystem, clobber=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    save(folder / "b.png", 1)
    save(folder / "a.jpg", 2)
    save(folder / "more" / "c.webp", 3)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "run"))


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_WAIT_SECONDS", 0.0)


def save(path: Path, shade: int, **options: object) -> None:
    Image.fromarray(np.full((20, 30, 3), shade, np.uint8)).save(path, **options)


def png_of_size(width: int, height: int) -> bytes:
    """A header that promises many pixels, and hardly any bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0" * 99)) + chunk(b"IEND", b"")
    )


def write_list(path: Path, *entries: object) -> str:
    path.write_text("\n".join(["uri", *map(str, entries)]))
    return str(path)


def errors(store: Store) -> dict[str, str]:
    return {row["file_name"]: row["error_code"] for row in read_rows(store, "ingest") if row["error_code"]}


def names(store: Store) -> list[str]:
    return [row["file_name"] for row in read_rows(store, "ingest")]


def test_a_folder_is_searched_through_and_sorted(photos: Path, store: Store) -> None:
    summary = ingest([str(photos)], store, CONFIG)

    assert summary.status == {"done": 3}
    assert names(store) == ["a.jpg", "b.png", "c.webp"]
    row = read_rows(store, "ingest")[0]
    assert (row["width"], row["height"], row["format"], row["num_copies"]) == (30, 20, "JPEG", 1)
    assert len(row["photo_id"]) == 16


def test_what_is_not_a_photo_is_a_row_that_says_why(photos: Path, store: Store) -> None:
    (photos / "empty.png").write_bytes(b"")
    (photos / "text.png").write_text("not a picture at all")
    (photos / "bomb.png").write_bytes(png_of_size(30_000, 30_000))
    (photos / "wide.png").write_bytes(png_of_size(11_000, 10_000))
    (photos / "heavy.png").write_bytes(b"x" * 5000)
    (photos / "notes.txt").write_text("passed over")
    (photos / ".hidden.png").write_text("passed over")

    summary = ingest([str(photos), str(photos / "gone.png")], store, StorageConfig(max_photo_bytes=4000))

    rows = {row["file_name"]: row for row in read_rows(store, "ingest") if row["status"] == "rejected"}
    assert {name: row["error_code"] for name, row in rows.items()} == {
        "empty.png": "empty_file",
        "text.png": "not_an_image",
        "bomb.png": "too_large",
        "wide.png": "too_large",
        "heavy.png": "too_large",
        "gone.png": "missing_file",
    }
    assert all(name in row["error_message"] for name, row in rows.items())
    assert summary.status == {"done": 3, "rejected": 6}


def test_photos_with_the_same_bytes_are_one_row(photos: Path, store: Store) -> None:
    shutil.copy(photos / "b.png", photos / "z.png")

    summary = ingest([str(photos)], store, CONFIG)

    rows = {row["file_name"]: row for row in read_rows(store, "ingest")}
    assert summary.num_rows == 3
    assert rows["b.png"]["num_copies"] == 2
    assert [Path(uri).name for uri, _ in json.loads(rows["b.png"]["copies"])] == ["b.png", "z.png"]


def test_a_second_look_reads_only_what_changed(photos: Path, store: Store) -> None:
    shutil.copy(photos / "b.png", photos / "z.png")
    ingest([str(photos)], store, CONFIG)
    save(photos / "more" / "c.webp", 4)

    fewer = [str(photos / "b.png"), str(photos / "z.png"), str(photos / "a.jpg")]
    same = ingest(fewer, store, StorageConfig(prune=True))
    changed = ingest([str(photos)], store, CONFIG)

    assert (same.num_records, same.num_reused, same.num_rows) == (3, 3, 2)
    assert changed.num_records - changed.num_reused == 1


def test_a_photo_keeps_its_fingerprint_when_it_moves(photos: Path, store: Store) -> None:
    ingest([str(photos)], store, CONFIG)
    before = {row["photo_id"]: row["fingerprint"] for row in read_rows(store, "ingest")}
    ingest([str(photos.rename(photos.with_name("moved")))], store, CONFIG)

    assert {row["photo_id"]: row["fingerprint"] for row in read_rows(store, "ingest")} == before


def test_photos_that_are_not_asked_for_any_more_stop_the_run(photos: Path, store: Store) -> None:
    for shade in range(10, 14):
        save(photos / f"{shade}.png", shade)
    ingest([str(photos)], store, CONFIG)
    before = read_rows(store, "ingest")

    with pytest.raises(ConfigError, match=r"results of 6 photos .*10\.png, .*11\.png, .*12\.png, \.\.\.\).*prune=true"):
        ingest([str(photos / "b.png")], store, CONFIG)

    assert read_rows(store, "ingest") == before
    assert ingest([str(photos)], store, CONFIG).status == {"done": 7}
    assert ingest([str(photos / "b.png")], store, StorageConfig(prune=True)).status == {"done": 1}


def test_a_replaced_photo_may_go_and_one_that_cannot_be_read_may_not(photos: Path, store: Store) -> None:
    shutil.copy(photos / "a.jpg", photos / "copy.jpg")
    ingest([str(photos)], store, CONFIG)
    save(photos / "b.png", 7)
    (photos / "a.jpg").unlink()
    assert ingest([str(photos)], store, CONFIG).status == {"done": 3}
    (photos / "b.png").write_bytes(b"")

    with pytest.raises(ConfigError, match=r"results of 1 photo that .* cannot read now \(.*b\.png\)"):
        ingest([str(photos)], store, CONFIG)


def test_a_sub_folder_that_cannot_be_listed_does_not_look_empty(photos: Path, store: Store) -> None:
    inputs = [f"failing://{photos}"]
    ingest(inputs, store, CONFIG)
    before = read_rows(store, "ingest")
    FailingFileSystem.failures["photos/more"] = [PermissionError(errno.EACCES, "not yours", "photos/more")]

    with pytest.raises(AccessError, match=r"cannot list failing://.*photos: access denied .*photos/more"):
        ingest(inputs, store, CONFIG)

    assert FailingFileSystem.failures.pop("photos/more") == []
    assert read_rows(store, "ingest") == before
    assert ingest(inputs, store, CONFIG).num_reused == 3


def test_a_rejected_photo_is_looked_at_again_when_it_was_replaced(photos: Path, store: Store) -> None:
    (photos / "a.jpg").write_bytes(b"")
    first = ingest([str(photos)], store, CONFIG)
    save(photos / "a.jpg", 9)
    second = ingest([str(photos)], store, CONFIG)

    assert first.status == {"rejected": 1, "done": 2}
    assert second.status == {"done": 3}


def test_the_size_is_that_of_the_upright_photo(photos: Path, store: Store) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    save(photos / "a.jpg", 5, exif=exif)

    ingest([str(photos / "a.jpg")], store, CONFIG)

    row = read_rows(store, "ingest")[0]
    assert (row["width"], row["height"]) == (20, 30)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_list_names_photos_absolutely_or_beside_it(photos: Path, store: Store, suffix: str) -> None:
    uris = [str(photos / "a.jpg"), "b.png", "more/c.webp"]
    path = photos / f"list.{suffix}"
    if suffix == "csv":
        path.write_text("\n".join(["number,uri", *(f"{number},{uri}" for number, uri in enumerate(uris))]))
    else:
        pq.write_table(pa.table({"number": [0, 1, 2], "uri": uris}), path)

    summary = ingest([str(path)], store, CONFIG)

    assert summary.status == {"done": 3}
    assert names(store) == ["a.jpg", "b.png", "c.webp"]


def test_a_list_without_a_column_of_uris_says_what_it_has(photos: Path, store: Store) -> None:
    (photos / "list.csv").write_text("name,age\nann,4\n")

    with pytest.raises(ConfigError, match=r"columns \['name', 'age'\], expected one called uri"):
        ingest([str(photos / "list.csv")], store, CONFIG)


def test_globs_and_files_may_be_mixed_and_overlap(photos: Path, store: Store) -> None:
    ingest([str(photos / "*.png"), str(photos / "b.png"), str(photos / "**" / "*.webp")], store, CONFIG)

    assert names(store) == ["b.png", "c.webp"]


@pytest.mark.parametrize("content", [[], ["notes.txt"]])
def test_a_folder_without_photos_is_an_error(tmp_path: Path, store: Store, content: list[str]) -> None:
    (tmp_path / "bare").mkdir()
    for name in content:
        (tmp_path / "bare" / name).write_text("words")

    with pytest.raises(ConfigError, match=rf"no photos in .*bare: {len(content)} other files were passed over"):
        ingest([str(tmp_path / "bare")], store, CONFIG)


def test_a_folder_that_does_not_exist_is_an_error(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        ingest([str(tmp_path / "nowhere")], store, CONFIG)


@pytest.mark.usefixtures("no_waiting")
def test_odd_entries_of_a_list_cost_only_themselves(photos: Path, store: Store, web_server: WebServer) -> None:
    web_server.files["/good.png"] = (photos / "b.png").read_bytes()
    web_server.statuses["/secret.png"] = 403
    (photos / "circle.png").symlink_to("circle.png")
    (photos / "bad_sector.png").symlink_to("/proc/self/mem")
    os.mkfifo(photos / "pipe.png")
    odd = {
        "more": "unreadable_file",
        "gone.png": "missing_file",
        "circle.png": "unreadable_file",
        "pipe.png": "unreadable_file",
        "bad_sector.png": "unreadable_file",
        "null\0.png": "storage",
        "htps://host/scheme.png": "storage",
        "file://~nobody-of-this-name/home.png": "missing_file",
        f"{web_server.url}/secret.png": "access_denied",
    }
    path = write_list(photos / "list.csv", "a.jpg", *odd, f"{web_server.url}/good.png")

    summary = ingest([path], store, CONFIG)

    assert summary.status == {"done": 2, "rejected": len(odd)}
    assert errors(store) == {name.rpartition("/")[2]: code for name, code in odd.items()}


def test_odd_files_of_a_folder_cost_only_themselves(photos: Path, store: Store) -> None:
    os.mkfifo(photos / "pipe.jpg")
    (photos / "circle.jpg").symlink_to("circle.jpg")
    (photos / "link.jpg").symlink_to("b.png")
    shutil.copy(photos / "b.png", os.fsencode(photos) + b"/caf\xe9.png")

    for item in (photos, photos / "**"):
        summary = ingest([str(item)], store, CONFIG)

        assert summary.status == {"done": 3, "rejected": 2}
        assert errors(store) == {r"caf\xe9.png": "bad_file_name", "circle.jpg": "unreadable_file"}


def test_a_folder_whose_name_is_not_text_is_told_for_each_photo(photos: Path, store: Store) -> None:
    folder = os.fsdecode(os.fsencode(photos.parent) + b"/\xe9t\xe9")
    photos.rename(folder)

    assert ingest([folder, f"{folder}/a.jpg"], store, CONFIG).status == {"rejected": 3}


@pytest.mark.parametrize("start", [b"uri\nb.png\n", b"uri,caf\xe9\nb.png,x\n"])
def test_a_list_that_is_not_utf8_is_told(photos: Path, store: Store, start: bytes) -> None:
    (photos / "list.csv").write_bytes(start + b"caf\xe9.png,x\n")

    with pytest.raises(ConfigError, match=r"list\.csv is not UTF-8 \(line \d\)"):
        ingest([str(photos / "list.csv")], store, CONFIG)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_names_in_a_list_may_look_like_numbers(photos: Path, store: Store, suffix: str) -> None:
    for number in (1, 2):
        save(photos / f"0{number}.png", 50 + number)
        (photos / f"0{number}.png").rename(photos / str(number))
    path = photos / f"list.{suffix}"
    if suffix == "csv":
        write_list(path, 1, 2)
    else:
        pq.write_table(pa.table({"uri": [1, 2]}), path)

    assert ingest([str(path)], store, CONFIG).status == {"done": 2}
    assert names(store) == ["1", "2"]


def test_a_damaged_list_is_told(photos: Path, store: Store) -> None:
    path = photos / "list.parquet"
    pq.write_table(pa.table({"uri": ["a.jpg"]}), path)
    data = path.read_bytes()

    for damaged in (b"", b"words", data[:-20], data[:4] + bytes(20) + data[24:]):
        path.write_bytes(damaged)
        with pytest.raises(ConfigError, match="cannot be read as a list"):
            ingest([str(path)], store, CONFIG)


@pytest.mark.usefixtures("no_waiting")
def test_a_storage_that_is_gone_ends_the_run(photos: Path, store: Store, web_server: WebServer) -> None:
    web_server.files["/0.png"] = (photos / "a.jpg").read_bytes()
    entries = [f"{web_server.url}/{number}.png" for number in range(40)]
    web_server.statuses.update({f"/{number}.png": 503 for number in range(1, 40)})

    with pytest.raises(StorageError, match=r"32 files in a row could not be read.*32\.png"):
        ingest([write_list(photos / "list.csv", *entries)], store, CONFIG)
    with pytest.raises(StorageError, match=r"none of 5 files could be read"):
        ingest([write_list(photos / "list.csv", *entries[1:6])], store, CONFIG)


@pytest.mark.parametrize(
    ("error", "code"),
    [(PermissionError("no"), "access_denied"), (FileNotFoundError("no"), "missing_file"), (OSError("no"), "storage")],
)
def test_a_file_that_could_not_be_read_is_looked_at_again(
    photos: Path, store: Store, error: OSError, code: str
) -> None:
    """Its stamp is the same: permissions, for one, do not change it."""
    archive = f"refusing://{photos}"
    with RefusingFileSystem.refusing("a.jpg", error):
        first = ingest([archive], store, CONFIG)
        second = ingest([archive], store, CONFIG)
    third = ingest([archive], store, CONFIG)
    fourth = ingest([archive], store, CONFIG)

    assert first.errors == second.errors == {code: 1}
    assert [found.num_records - found.num_reused for found in (first, second, third, fourth)] == [3, 1, 1, 0]
    assert third.status == {"done": 3}


@pytest.mark.parametrize("way", ["out", "more/out", "link/out"])
def test_what_the_run_made_inside_its_input_is_no_photo(photos: Path, way: str) -> None:
    (photos.parent / "link").symlink_to("photos")
    run = Store(str(photos / way if "link" not in way else photos.parent / way))
    run.write("animate/files/preview/x.webp", png_of_size(7, 7))
    run.write("saved.png", png_of_size(8, 8))

    for item in (photos, photos / "more" / "..", photos / "**"):
        ingest([str(item)], run, CONFIG)
        assert names(run) == ["a.jpg", "b.png", "c.webp"]


def test_photos_may_lie_in_the_run_folder(photos: Path) -> None:
    (photos / "animate" / "files").mkdir(parents=True)
    save(photos / "animate" / "files" / "made.webp", 70)

    for item, run in {photos: photos, photos / "more": photos, photos / "*": photos, photos / "a.jpg": photos}.items():
        ingest([str(item)], Store(str(run)), StorageConfig(prune=True))
        assert "made.webp" not in names(Store(str(run)))
        assert names(Store(str(run)))


def test_a_picture_that_the_run_made_can_be_named(photos: Path, store: Store) -> None:
    store.write("animate/files/preview/x.webp", (photos / "b.png").read_bytes())
    made = store.locate("animate/files/preview/x.webp")

    assert ingest([made], store, CONFIG).status == {"done": 1}
    with pytest.raises(ConfigError, match="1 pictures in the run folder"):
        ingest([store.url], store, CONFIG)


def test_the_run_folder_in_a_bucket_is_told_apart_from_its_neighbours(store: Store) -> None:
    bucket = Store(f"memory://{Path(store.url).parent.name}")
    for name in ("a.png", "run/animate/files/x.png", "running/b.png"):
        bucket.write(name, png_of_size(9, len(name)))

    ingest([bucket.url], bucket.child("run"), CONFIG)

    assert names(bucket.child("run")) == ["a.png", "b.png"]


@pytest.mark.parametrize("item", ["", " "])
def test_an_empty_input_is_refused(store: Store, item: str) -> None:
    with pytest.raises(ConfigError, match="got an empty name"):
        ingest([item], store, CONFIG)


def test_the_address_of_a_photo_or_list_may_have_a_query(photos: Path, store: Store, web_server: WebServer) -> None:
    web_server.files["/a.png"] = (photos / "b.png").read_bytes()
    web_server.files["/list.csv"] = f"uri\n{web_server.url}/a.png?signature=a=b".encode()

    for name in ("a.png", "list.csv"):
        assert ingest([f"{web_server.url}/{name}?signature=a=b"], store, CONFIG).status == {"done": 1}
    assert ingest([f"{web_server.url}/gone.png?signature=a=b"], store.child("other"), CONFIG).errors == {
        "missing_file": 1
    }


def test_the_limit_on_pixels_is_the_one_that_is_set(photos: Path, store: Store) -> None:
    (photos / "wide.png").write_bytes(png_of_size(20_000, 10_000))

    for limit, status in {
        10**9: {"done": 4},
        200_000_000: {"done": 4},
        199_999_999: {"done": 3, "rejected": 1},
    }.items():
        assert ingest([str(photos)], store, StorageConfig(max_photo_pixels=limit, prune=True)).status == status
