"""Odd files and list entries cost only themselves; results of a run are no photos."""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from galatea.errors import ConfigError, StorageError
from pipeline import storage
from pipeline.ingest import ingest
from pipeline.photo_lists import names_in_csv
from pipeline.settings import StorageConfig
from pipeline.storage import Store
from tests.pipeline.photo_archive import RefusingFileSystem, errors, names, png_of_size, save, write_archive, write_list
from tests.pipeline.web_server import WebServer

CONFIG = StorageConfig()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "photos")


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_WAIT_SECONDS", 0.0)


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


def test_other_columns_of_a_list_may_hold_anything(photos: Path, store: Store) -> None:
    lines = [f'{number}.png,"two\nlines",{number}' for number in range(60_000)]
    text = "\n".join(["uri,caption,age", "b.png,,unknown", *lines, "a.jpg,,unknown"])

    assert names_in_csv("list.csv", text.encode()) == [
        "b.png",
        *(f"{number}.png" for number in range(60_000)),
        "a.jpg",
    ]


def test_only_the_names_in_a_list_are_read(photos: Path, store: Store) -> None:
    path = photos / "list.parquet"
    pq.write_table(pa.table({"embedding": [b"\0" * 4096] * 2, "uri": ["a.jpg", "b.png"]}), path, compression="none")
    data = path.read_bytes()
    path.write_bytes(data[:4] + bytes(2048) + data[2052:])

    assert ingest([str(path)], store, CONFIG).status == {"done": 2}


def test_links_to_folders_are_told(photos: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    elsewhere = photos.rename(photos.with_name("elsewhere"))
    photos.mkdir()
    (photos / "more").mkdir()
    save(photos / "more" / "d.png", 4)
    for name in ("more/y", "more/x", ".hidden"):
        (photos / name).symlink_to(elsewhere)
    (photos / "more" / "link.jpg").symlink_to(elsewhere / "a.jpg")

    for item, is_told in {"": True, "**/*.png": True, "*/*": False}.items():
        caplog.clear()
        ingest([f"{photos}/{item}"], store, StorageConfig(prune=True))

        told = f"2 links to folders were not followed, such as {photos}/more/x: name"
        assert (told in caplog.text) is ("links to folders" in caplog.text) is is_told
    assert ingest([str(photos / "more" / "x")], store, StorageConfig(prune=True)).status == {"done": 3}


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("Last-Modified", ("Mon, 02 Jan 2006 15:04:05 GMT", "Tue, 03 Jan 2006 15:04:05 GMT")),
        ("Content-MD5", ("a", "b")),
        ("Digest", ("sha-256=a", "sha-256=b")),
        ("ETag", ('"a"', '"b"')),
    ],
)
def test_a_photo_that_was_replaced_on_a_web_server_is_looked_at_again(
    store: Store, web_server: WebServer, header: str, values: tuple[str, str]
) -> None:
    web_server.files["/"] = b'<a href="/a.png">a</a>'
    num_read = []
    for value, shade in zip(values, (10, 20), strict=True):
        web_server.headers[header] = value
        web_server.files["/a.png"] = png_of_size(10, shade)
        for item in (f"{web_server.url}/a.png", f"{web_server.url}/*.png"):
            summary = ingest([item], store, CONFIG)
            num_read.append(summary.num_records - summary.num_reused)

    assert num_read == [1, 0, 1, 0]


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
