"""Fetches pinned archives from Python package indexes, as pip is configured, without running their code.

pip itself cannot do this for an sdist: `pip download` builds its metadata, which executes `setup.py`. So this module
asks pip only for its configuration (`pip config list`: indexes, find-links, certificate, proxy, timeout) and reads
the indexes itself (PEP 503 HTML and PEP 691 JSON), with the credentials of the URL or of `.netrc`.
"""

from __future__ import annotations

import ast
import base64
import errno
import hashlib
import json
import netrc
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import IO

from galatea.errors import StorageError, WeightsError

Progress = Callable[[str, int, int], None]
"""Called with (file name, bytes done, bytes in all or 0 where unknown)."""

PYPI = "https://pypi.org/simple"
_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_CHUNK_BYTES = 1 << 20
_TRIES = 3


@dataclass(frozen=True)
class Archive:
    """One pinned file of a package index."""

    package: str
    version: str
    file_name: str
    sha256: str


@dataclass(frozen=True)
class IndexConfig:
    """Where and how pip looks for packages."""

    indexes: tuple[str, ...] = (PYPI,)
    find_links: tuple[str, ...] = ()
    certificate: str | None = None
    proxy: str | None = None
    timeout_seconds: float = 60.0
    trusted_hosts: tuple[str, ...] = ()


def pip_config(python: str = sys.executable, environ: Mapping[str, str] | None = None) -> IndexConfig:
    """Read pip's own configuration (files and `PIP_*` variables); without pip, the variables alone count."""
    environ = os.environ if environ is None else environ
    answer = subprocess.run(
        [python, "-m", "pip", "config", "list"],
        capture_output=True,
        text=True,
        env=dict(environ),
        check=False,
        timeout=60,
    )
    settings = _parse_pip_config(answer.stdout if answer.returncode == 0 else "")
    for name, value in environ.items():
        if name.startswith("PIP_") and value:
            settings[name[4:].lower().replace("_", "-")] = value
    main = () if _is_true(settings.get("no-index")) else (settings.get("index-url", PYPI),)
    extra = () if _is_true(settings.get("no-index")) else tuple(settings.get("extra-index-url", "").split())
    return IndexConfig(
        indexes=tuple(dict.fromkeys((*main, *extra))),
        find_links=tuple(settings.get("find-links", "").split()),
        certificate=settings.get("cert"),
        proxy=settings.get("proxy"),
        timeout_seconds=float(settings.get("timeout", settings.get("default-timeout", "60"))),
        trusted_hosts=tuple(settings.get("trusted-host", "").split()),
    )


def _parse_pip_config(text: str) -> dict[str, str]:
    """Turn `section.key='value'` lines into key -> value: `download.` over `global.`, the environment over both."""
    ranks = {"global": 0, "download": 1, ":env:": 2}
    found: dict[str, tuple[int, str]] = {}
    for line in text.splitlines():
        match = re.fullmatch(r"(:env:|[\w-]+)\.([\w-]+)=(['\"].*['\"])", line.strip())
        if match is None or match[1] not in ranks:
            continue
        rank = ranks[match[1]]
        if rank >= found.get(match[2], (-1, ""))[0]:
            found[match[2]] = (rank, str(ast.literal_eval(match[3])))
    return {key: value for key, (_, value) in found.items()}


def _is_true(value: str | None) -> bool:
    return value is not None and value.strip().lower() in {"1", "true", "yes", "on"}


def download(archive: Archive, target: Path, config: IndexConfig, progress: Progress | None = None) -> None:
    """Write `archive` to `target`, verified by its sha256.

    Raises:
        WeightsError: no index has the file, none can be reached, or the bytes have another hash.
        StorageError: the disk is full or the folder cannot be written.
    """
    trouble: list[str] = []
    for place in (*config.find_links, *(_project_url(index, archive.package) for index in config.indexes)):
        for _ in range(_TRIES):
            try:
                url = _find_url(place, archive, config)
                if url is None:
                    trouble.append(f"{_public(place)}: does not have it")
                    break
                digest = _stream(url, archive.file_name, target, config, progress)
            except (urllib.error.HTTPError, FileNotFoundError) as error:
                trouble.append(f"{_public(place)}: {error}")
                break
            except (urllib.error.URLError, TimeoutError, HTTPException, ConnectionError) as error:
                trouble.append(f"{_public(place)}: {error}")
                continue
            if digest == archive.sha256:
                return
            trouble.append(f"{_public(url)}: sha256 is {digest}")
            break
    seen = "\n  ".join(dict.fromkeys(trouble)) or "no index is configured (pip's no-index)"
    raise WeightsError(
        f"Cannot fetch {archive.file_name} of {archive.package}=={archive.version} (sha256 {archive.sha256}).\n"
        f"  {seen}\n"
        "Check the network, or point pip to a mirror that has it (`pip config set global.index-url ...`, "
        "PIP_INDEX_URL, "
        "or PIP_FIND_LINKS=folder with the file), then run `galatea models fetch open` again."
    )


def _project_url(index: str, package: str) -> str:
    return f"{index.rstrip('/')}/{re.sub(r'[-_.]+', '-', package).lower()}/"


def _find_url(place: str, archive: Archive, config: IndexConfig) -> str | None:
    """URL of the archive at an index's project page, a find-links page or a find-links folder."""
    if place.startswith("file:") or "://" not in place:
        is_url = place.startswith("file:")
        folder = Path(urllib.request.url2pathname(urllib.parse.urlparse(place).path) if is_url else place).expanduser()
        if (folder / archive.file_name).is_file():
            return (folder / archive.file_name).resolve().as_uri()
        page = folder / "index.html" if folder.is_dir() else folder
        if not page.is_file():
            return None
        place = page.resolve().as_uri()
    with _open(place, config, accept=_ACCEPT) as response:
        base, text = response.geturl(), response.read().decode("utf-8", "replace")  # type: ignore[attr-defined]
        is_json = "json" in response.headers.get("Content-Type", "")  # type: ignore[attr-defined]
    links = [str(file["url"]) for file in json.loads(text)["files"]] if is_json else _Anchors.of(text)
    for link in links:
        url = urllib.parse.urljoin(base, link)
        if urllib.parse.unquote(urllib.parse.urlparse(url).path).rsplit("/", 1)[-1] == archive.file_name:
            return str(urllib.parse.urldefrag(url).url)
    return None


class _Anchors(HTMLParser):
    """Collects the link targets of a PEP 503 page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value for name, value in attrs if tag == "a" and name == "href" and value]

    @classmethod
    def of(cls, text: str) -> list[str]:
        parser = cls()
        parser.feed(text)
        return parser.links


def _open(url: str, config: IndexConfig, accept: str = "*/*") -> IO[bytes]:
    parts = urllib.parse.urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in {"http", "https", "file"}:
        raise WeightsError(f"Package index {_public(url)} has scheme {parts.scheme!r}; expected https, http or file.")
    context = ssl.create_default_context(cafile=config.certificate)
    if host in {trusted.split(":")[0] for trusted in config.trusted_hosts}:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if config.proxy:
        handlers.append(urllib.request.ProxyHandler({"http": config.proxy, "https": config.proxy}))
    request = urllib.request.Request(  # noqa: S310 the scheme is checked above
        urllib.parse.urlunsplit(parts._replace(netloc=parts.netloc.rsplit("@", 1)[-1])), headers={"Accept": accept}
    )
    credentials = _credentials(parts)
    if credentials:
        # Not repeated to the host a redirect leads to.
        request.add_unredirected_header("Authorization", "Basic " + base64.b64encode(credentials.encode()).decode())
    response: IO[bytes] = urllib.request.build_opener(*handlers).open(request, timeout=config.timeout_seconds)
    return response


def _credentials(parts: urllib.parse.SplitResult) -> str | None:
    if parts.username is not None:
        return f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
    try:
        entry = netrc.netrc().authenticators(parts.hostname or "") if parts.hostname else None
    except (OSError, netrc.NetrcParseError):
        return None
    return f"{entry[0]}:{entry[2]}" if entry else None


def _stream(url: str, name: str, target: Path, config: IndexConfig, progress: Progress | None) -> str:
    """Copy the bytes of `url` to `target` and return their sha256."""
    digest, done = hashlib.sha256(), 0
    with _open(url, config) as response:
        total = int(response.headers.get("Content-Length") or 0)  # type: ignore[attr-defined]
        try:
            with target.open("wb") as file:
                while chunk := response.read(_CHUNK_BYTES):
                    file.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(name, done, total)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EFBIG}:
                raise storage_error(error, target, total) from error
            raise
    return digest.hexdigest()


def storage_error(error: OSError, target: Path, num_bytes: int = 0) -> StorageError:
    """Say which folder cannot take how many bytes, and what to do."""
    need = f" ({num_bytes / 1e6:.0f} MB)" if num_bytes else ""
    return StorageError(
        f"Cannot write {target}{need}: {error.strerror}. "
        "Free some space or set GALATEA_HOME to a folder on a disk with room, then run `galatea models fetch "
        "open` again."
    )


def _public(url: str) -> str:
    """The URL without its credentials, for messages."""
    return re.sub(r"//[^/@]*@", "//***@", url)
