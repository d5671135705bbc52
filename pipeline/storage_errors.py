"""What can go wrong with storage, told apart: missing, refused, full, passing, or broken."""

from __future__ import annotations

import errno
import sys

from galatea.errors import StorageError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_TRANSIENT = {errno.ETIMEDOUT, errno.ECONNRESET, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.EIO, errno.ENETUNREACH}


class MissingFileError(StorageError):
    """There is no such file, folder or bucket."""

    code = "missing_file"


class AccessError(StorageError):
    """The credentials or permissions do not allow it."""

    code = "access_denied"


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
    return type(error).__name__ not in {
        "NoCredentialsError",
        "PartialCredentialsError",
        "ClientError",
        "ParamValidationError",
    }


def explain(error: BaseException, action: str, url: str) -> StorageError:
    """The error that says what was tried, where, why it failed and what to do."""
    what = f"cannot {action} {url}"
    if isinstance(error, OSError) and error.errno in _FULL:
        return FullDiskError(
            f"{what}: no space is left ({error.strerror or error}). "
            "What was written before is intact: free some space and run again to continue"
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return MissingFileError(f"{what}: no such file, folder or bucket")
    if isinstance(error, PermissionError) or type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:
        return AccessError(f"{what}: access denied ({error}). Check the permissions, or the storage credentials")
    return StorageError(f"{what}: {type(error).__name__}: {error}")
