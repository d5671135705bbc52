import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from galatea.errors import ConfigError, StorageError
from pipeline import storage
from pipeline.rows import RowReader
from pipeline.storage import Store, resolve
from pipeline.storage_errors import AccessError, FullDiskError, MissingFileError, UnreadableFileError
from tests.pipeline.failing_disk import FailingFileSystem
from tests.pipeline.web_server import WebServer


class FlakyFileSystem(LocalFileSystem):
    """Fails its first reads as a bad network does, and refuses what it is told to."""

    protocol = "flaky"
    failures: ClassVar[list[OSError]] = []

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("flaky://"))

    def cat_file(self, path: str, *args: Any, **kwargs: Any) -> bytes:
        if self.failures:
            raise self.failures.pop(0)
        return super().cat_file(path, *args, **kwargs)


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)


@pytest.fixture(params=["local", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return Store(str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}")


def write_and_raise(store: Store, error: Exception) -> None:
    with store.writing("a") as file:
        file.write(b"new, but not all of it")
        raise error


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "_FIRST_WAIT_SECONDS", 0.0)


def test_what_is_written_is_read(store: Store) -> None:
    store.write("a/b.bin", b"one")
    with store.writing("a/c.bin") as file:
        file.write(b"two")

    assert store.read("a/b.bin") == b"one"
    with store.reading("a/c.bin") as file:
        assert file.read() == b"two"
    assert store.child("a").read("c.bin") == b"two"


def test_a_listing_is_sorted_and_shows_no_hidden_files(store: Store) -> None:
    for name in ("b", "a/z", "a/y", ".hidden", "a/.x.1234.tmp"):
        store.write(name, b"12")

    assert [(entry.path, entry.num_bytes) for entry in store.files()] == [("a/y", 2), ("a/z", 2), ("b", 2)]
    assert [entry.path for entry in store.files("a")] == ["a/y", "a/z"]
    assert store.files("nothing/here") == []


@pytest.mark.usefixtures("no_waiting")
def test_a_folder_that_went_away_while_it_was_listed_is_listed_again_and_one_that_is_refused_is_told(
    tmp_path: Path,
) -> None:
    store = Store(f"failing://{tmp_path}")
    for name in ("a/x", "b/deep/y", ".hidden/z", "lost+found/z"):
        store.write(name, b"1")
    FailingFileSystem.failures["b/deep"] = [FileNotFoundError("gone"), None, PermissionError("not yours: deep")]
    FailingFileSystem.failures["/.hidden"] = FailingFileSystem.failures["lost+found"] = [PermissionError("not yours")]

    assert [entry.path for entry in store.files()] == ["a/x", "b/deep/y"]
    with pytest.raises(AccessError, match=r"cannot list .*not yours: deep"):
        store.files("b")
    FailingFileSystem.failures.clear()


def test_a_file_that_cannot_be_looked_up_now_does_not_seem_to_be_gone(tmp_path: Path) -> None:
    store = Store(f"failing://{tmp_path}")
    store.write("a", b"1")
    FailingFileSystem.failures["a?"] = [PermissionError("not yours")]

    with pytest.raises(AccessError, match=r"cannot look up .*not yours"):
        store.exists("a")

    assert FailingFileSystem.failures.pop("a?") == []
    assert store.exists("a")
    assert not store.exists("b")
    assert not store.exists("a/b")
    assert not store.exists("")


def test_a_stamp_changes_with_the_content(store: Store) -> None:
    store.write("a", b"1")
    before = store.entry("a").stamp
    store.write("a", b"22")

    assert store.entry("a").stamp != before


def test_a_missing_file_is_told(store: Store) -> None:
    for action in (lambda: store.read("no"), lambda: store.entry("no"), lambda: store.reading("no").__enter__()):
        with pytest.raises(MissingFileError, match="no such file"):
            action()


def test_deleting_what_is_gone_is_fine(store: Store) -> None:
    store.write("a", b"1")
    store.delete("a")
    store.delete("a")

    assert not store.exists("a")


def test_a_write_that_fails_midway_leaves_the_old_content_and_no_rest(store: Store) -> None:
    store.write("a", b"old")

    with pytest.raises(ZeroDivisionError):
        write_and_raise(store, ZeroDivisionError())

    assert store.read("a") == b"old"
    assert [entry.path for entry in store._files("")] == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_told_and_what_was_there_is_kept(number: int, tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.write("a", b"old")

    with pytest.raises(FullDiskError, match=r"no space is left.*run again to continue"):
        write_and_raise(store, OSError(number, os.strerror(number)))

    assert store.read("a") == b"old"


def test_a_limit_of_the_system_is_a_full_disk(tmp_path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from pipeline.storage import Store\n"
        "from pipeline.storage_errors import FullDiskError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        f"store = Store({str(tmp_path)!r})\n"
        "store.write('small', b'x' * 900)\n"
        "try:\n    store.write('small', b'x' * 2000)\n"
        "except FullDiskError as error:\n    print(error)\n"
    )

    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout

    assert "no space is left" in output
    assert (tmp_path / "small").read_bytes() == b"x" * 900
    assert [path.name for path in tmp_path.iterdir()] == ["small"]


@pytest.mark.usefixtures("no_waiting")
def test_a_failure_that_passes_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    FlakyFileSystem.failures[:] = [ConnectionResetError("reset"), TimeoutError("slow"), OSError(errno.EIO, "broken")]

    assert Store(f"flaky://{tmp_path}").read("a") == b"1"


@pytest.mark.usefixtures("no_waiting")
def test_opening_and_random_access_are_tried_again_too(tmp_path: Path) -> None:
    store = Store(f"failing://{tmp_path}")
    pq.write_table(pa.table({"x": [1, 2, 3]}), tmp_path / "a.parquet")
    failures = [ConnectionResetError("reset"), OSError(errno.ESTALE, "stale")]

    FailingFileSystem.failures["a.parquet"] = [*failures]
    assert store.read_with("a.parquet", lambda file: file.read(4)) == b"PAR1"
    FailingFileSystem.failures["a.parquet"] = [*failures]
    with store.reading("a.parquet") as file:
        assert file.read(4) == b"PAR1"
    FailingFileSystem.failures["a.parquet"] = [*failures]
    assert RowReader(store).take("a.parquet", [1])["x"].to_pylist() == [2]
    assert FailingFileSystem.failures.pop("a.parquet") == []


@pytest.mark.usefixtures("no_waiting")
def test_trying_again_has_an_end(tmp_path: Path) -> None:
    FlakyFileSystem.failures[:] = [ConnectionResetError("reset")] * 100

    with pytest.raises(StorageError, match="ConnectionResetError: reset"):
        Store(f"flaky://{tmp_path}").read("a")

    assert len(FlakyFileSystem.failures) == 96
    FlakyFileSystem.failures.clear()


def test_a_refusal_is_not_tried_again(tmp_path: Path) -> None:
    FlakyFileSystem.failures[:] = [PermissionError("not yours"), PermissionError("not yours")]

    with pytest.raises(AccessError, match="access denied"):
        Store(f"flaky://{tmp_path}").read("a")

    assert len(FlakyFileSystem.failures) == 1
    FlakyFileSystem.failures.clear()


def test_an_unknown_scheme_names_what_is_expected() -> None:
    with pytest.raises(StorageError, match=r"gopher.*Expected a local path or a URL such as s3://"):
        Store("gopher://bucket/run").check_writable()


def test_a_run_folder_below_a_file_is_told_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot write"):
        Store(str(tmp_path / "file" / "run")).check_writable()


def test_a_run_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="it is a file, expected a folder"):
        Store(str(tmp_path / "file")).check_writable()


@pytest.mark.parametrize("url", ["", "  "])
def test_an_empty_path_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="got an empty one"):
        Store(url)


def test_a_local_name_may_hold_what_is_a_sign_in_urls(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "a::b"))
    store.write("IMG::1.jpg", b"1")

    assert (tmp_path / "a::b" / "IMG::1.jpg").read_bytes() == b"1"
    assert [entry.path for entry in store.files()] == ["IMG::1.jpg"]
    assert Store(f"file://{tmp_path}/a::b").read("IMG::1.jpg") == b"1"


def test_the_address_of_a_web_page_may_hold_what_joins_file_systems(web_server: WebServer) -> None:
    web_server.files["/a::b.jpg"] = b"1"

    assert Store(web_server.url).read("a::b.jpg") == b"1"


def test_the_host_in_a_url_is_the_one_that_is_asked() -> None:
    class SomeFileSystem(MemoryFileSystem):
        protocol = "some"

        @staticmethod
        def _get_kwargs_from_urls(path: str) -> dict[str, str]:
            return {"host": path.split("/")[2]}

    fsspec.register_implementation("some", SomeFileSystem, clobber=True)

    assert resolve("some://here/a", {"user": "me"})[0].storage_options == {
        "use_listings_cache": False,
        "host": "here",
        "user": "me",
    }


@pytest.mark.parametrize("action", ["read", "entry"])
def test_only_files_are_opened(action: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "circle.jpg").symlink_to("circle.jpg")
    store = Store(str(tmp_path))

    for name, reason in {"pipe": "a pipe", "folder": "a folder", "circle": "symbolic links"}.items():
        with pytest.raises(UnreadableFileError, match=reason):
            getattr(store, action)(f"{name}.jpg")


def test_only_files_and_links_to_them_are_listed(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name, target in {"link": "a.jpg", "to_folder": "folder", "to_pipe": "pipe.jpg", "broken": "gone"}.items():
        (tmp_path / f"{name}.jpg").symlink_to(target)

    assert [entry.path for entry in Store(str(tmp_path)).files()] == ["a.jpg", "broken.jpg", "link.jpg"]


def test_a_name_that_no_file_can_have_is_told(tmp_path: Path) -> None:
    for action in (Store.read, Store.entry):
        with pytest.raises(StorageError, match="null byte"):
            action(Store(str(tmp_path)), "a\0b.jpg")


@pytest.mark.usefixtures("no_waiting")
def test_a_disk_that_fails_for_one_file_is_told_apart() -> None:
    # The memory of a process is a regular file that can be opened and not be read from its beginning.
    with pytest.raises(UnreadableFileError, match="OSError"):
        Store("/proc/self").read("mem")


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(
    ("status", "error"), [(403, AccessError), (404, MissingFileError), (400, UnreadableFileError), (503, StorageError)]
)
def test_the_answers_of_a_web_server_are_told_apart(
    status: int, error: type[StorageError], web_server: WebServer
) -> None:
    web_server.statuses["/a.jpg"] = status

    with pytest.raises(error) as caught:
        Store(web_server.url).read("a.jpg")

    assert type(caught.value) is error
    assert web_server.num_requests == (4 if status == 503 else 1)


def test_what_killed_writers_left_is_swept_after_a_while(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.1234.tmp", tmp_path / ".b.1234.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))

    Store(str(tmp_path)).sweep_temporaries("")

    assert [path.name for path in tmp_path.iterdir()] == [new.name]
