import errno
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from galatea.errors import ConfigError
from pipeline.ingest import ingest
from pipeline.manifest import manifest_path, read_rows
from pipeline.settings import StorageConfig
from pipeline.storage import Store
from pipeline.storage_errors import AccessError
from tests.pipeline.failing_disk import FailingFileSystem
from tests.pipeline.photo_archive import names, png_of_size, save, write_archive

CONFIG = StorageConfig()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_archive(tmp_path / "photos")


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
    for name in ("y.png", "z.png"):
        shutil.copy(photos / "b.png", photos / name)

    summary = ingest([str(photos)], store, CONFIG)

    rows = {row["file_name"]: row for row in read_rows(store, "ingest")}
    assert summary.num_rows == 3
    assert rows["b.png"]["num_copies"] == 3
    assert [Path(uri).name for uri, _ in json.loads(rows["b.png"]["copies"])] == ["b.png", "y.png", "z.png"]


def test_a_second_look_reads_only_what_changed(photos: Path, store: Store) -> None:
    shutil.copy(photos / "b.png", photos / "z.png")
    ingest([str(photos)], store, CONFIG)
    save(photos / "more" / "c.webp", 4)

    fewer = [str(photos / "b.png"), str(photos / "z.png"), str(photos / "a.jpg")]
    same = ingest(fewer, store, StorageConfig(prune=True))
    changed = ingest([str(photos)], store, CONFIG)

    assert (same.num_records, same.num_reused, same.num_rows) == (3, 3, 2)
    assert changed.num_records - changed.num_reused == 1


def test_a_manifest_that_was_lost_is_made_again(photos: Path, store: Store) -> None:
    ingest([str(photos)], store, CONFIG)
    store.delete(manifest_path("ingest"))

    again = ingest([str(photos)], store, CONFIG)

    assert (again.num_reused, again.status) == (0, {"done": 3})
    assert names(store) == ["a.jpg", "b.png", "c.webp"]


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


def test_a_glob_does_not_pass_over_a_sub_folder_that_cannot_be_listed(photos: Path, store: Store) -> None:
    inputs = [f"failing://{photos}/**/*.jpg"]
    num_done = ingest(inputs, store, CONFIG).status["done"]
    (photos / "lost+found").mkdir()
    FailingFileSystem.failures["photos/more"] = [PermissionError(errno.EACCES, "not yours", "photos/more")]
    FailingFileSystem.failures["lost+found"] = [PermissionError(errno.EACCES, "not yours", "photos/lost+found")]

    with pytest.raises(AccessError, match=r"cannot list .*access denied .*photos/more"):
        ingest(inputs, store, CONFIG)

    FailingFileSystem.failures.clear()
    assert ingest(inputs, store, CONFIG).num_reused == num_done
    with pytest.raises(ConfigError, match="no photos"):
        ingest([str(photos / "nothing" / "*.jpg")], store, CONFIG)


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
