"""One invocation at a time in a run folder: two would delete each other's files."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from galatea.errors import ConfigError
from pipeline.storage import Store, is_local, resolve
from pipeline.storage_errors import explain

LOCK_FILE = ".galatea.lock"
_NO_LOCKS_HERE = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}

_log = logging.getLogger(__name__)


@contextmanager
def locked(run: Store) -> Iterator[None]:
    """Hold a run folder for this process, until the block ends or the process dies in whatever way.

    Only folders on this machine's file systems: object stores have no locks.

    Raises:
        ConfigError: another process holds it; nothing was touched.
        StorageError: the folder cannot be made or written.
    """
    if not is_local(run.url):
        yield
        return
    try:
        path = Path(resolve(run.url, {})[1]) / LOCK_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
    except OSError as error:
        raise explain(error, "write", run.locate(LOCK_FILE)) from error
    with file:
        _lock(file, run)
        yield


def _lock(file: IO[str], run: Store) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.seek(0)
        raise ConfigError(
            f"{run.url} is in use by another run ({file.read() or 'unknown'}): wait until that has ended, stop it, "
            "or use another --out"
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS_HERE:
            raise explain(error, "lock", run.locate(LOCK_FILE)) from error
        _log.warning("%s cannot be locked (%s): take care that no other run uses it", run.url, error)
    # For people; it must not fail a run on a full disk.
    with suppress(OSError):
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
