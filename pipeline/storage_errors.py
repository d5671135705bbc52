"""What can go wrong with storage, told apart: missing, refused, full, passing, or broken."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from galatea.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_OF_ONE_FILE = {errno.EIO, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.ENXIO, errno.EINVAL, errno.ENODEV}
_REFUSED_STATUS, _GONE_STATUS, _BUSY_STATUS = {401, 403, 407}, {404, 410}, {408, 425, 429}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError"}
_READS = {"read", "look up"}
_TRANSIENT = {errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.EIO, errno.ENETUNREACH}


class MissingFileError(StorageError):
    """There is no such file, folder or bucket."""

    code = "missing_file"


class DamagedFileError(StorageError):
    """The file is there and can be read, but is not what it should be."""

    code = "damaged_file"


class AccessError(StorageError):
    """The credentials or permissions do not allow it."""

    code = "access_denied"


class UnreadableFileError(StorageError):
    """One file cannot be read (a folder, a pipe, a bad sector, links in a circle); others beside it may."""

    code = "unreadable_file"


class FullDiskError(StorageError):
    """No space is left (disk, quota or file size limit)."""

    code = "disk_full"


def network_errors() -> tuple[type[BaseException], ...]:
    """What storage can raise; client libraries that are not loaded cannot have raised."""
    errors: list[type[BaseException]] = [OSError]
    if "botocore.exceptions" in sys.modules:
        botocore = sys.modules["botocore.exceptions"]
        errors += [botocore.BotoCoreError, botocore.ClientError]
    if "aiohttp" in sys.modules:
        errors.append(sys.modules["aiohttp"].ClientError)
    return tuple(errors)


def is_transient(error: BaseException) -> bool:
    """Whether trying again may help."""
    if isinstance(error, OSError):
        is_refusal = isinstance(error, FileNotFoundError | PermissionError)
        return not is_refusal and (isinstance(error, ConnectionError | TimeoutError) or error.errno in _TRANSIENT)
    status = _http_status(error)
    if status:
        return status in _BUSY_STATUS or status >= 500
    return type(error).__name__ not in {*_NO_CREDENTIALS, "ClientError", "ParamValidationError"}


def explain(error: BaseException, action: str, url: str) -> StorageError:
    """The error that says what was tried, where, why it failed and what to do."""
    what = f"cannot {action} {url}"
    if isinstance(error, OSError) and error.errno in _FULL:
        return FullDiskError(
            f"{what}: no space is left ({error.strerror or error}). "
            "What was written before is intact: free some space and run again to continue"
        )
    status = _http_status(error)
    if isinstance(error, FileNotFoundError | NotADirectoryError) or status in _GONE_STATUS:
        return MissingFileError(f"{what}: no such file, folder or bucket")
    if _is_refusal(error) or status in _REFUSED_STATUS:
        return AccessError(f"{what}: access denied ({error}). Check the permissions, or the storage credentials")
    reason = f"{type(error).__name__}: {error}"
    if isinstance(error, IsADirectoryError):
        reason = "it is a folder, expected a file"
    is_one_file = _is_of_one_file(error, url) or (400 <= status < 500 and status not in _BUSY_STATUS)
    if action in _READS and is_one_file:
        return UnreadableFileError(f"{what}: {reason}")
    return StorageError(f"{what}: {reason}")


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """What fails inside the block, which does that to a local file, is told as a StorageError."""
    try:
        yield
    except OSError as error:
        raise explain(error, action, str(path)) from error


def _is_refusal(error: BaseException) -> bool:
    return isinstance(error, PermissionError) or type(error).__name__ in _NO_CREDENTIALS


def _is_of_one_file(error: BaseException, url: str) -> bool:
    """Whether a disk fails for one file; remote file systems report their own trouble with the same numbers."""
    is_local = "://" not in url or url.startswith("file://")
    return is_local and isinstance(error, OSError) and error.errno in _OF_ONE_FILE


def _http_status(error: BaseException) -> int:
    """The status of an HTTP answer that is an error; 0 where it is none."""
    status = getattr(error, "status", 0)
    return status if isinstance(status, int) else 0
