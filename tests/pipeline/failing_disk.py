"""A disk on which single reads fail, behind the protocol `failing`."""

from __future__ import annotations

from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem


class FailingFileSystem(LocalFileSystem):
    """Fails to open files for reading, and to list folders, as `failures` says."""

    protocol = "failing"
    failures: ClassVar[dict[str, list[OSError | None]]] = {}
    """End of the path (with a ? behind it: for look-ups) -> what happens the next times; None: nothing special."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("failing://"))

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        if "r" in mode:
            self._fail(path)
        return super().open(path, mode, *args, **kwargs)

    def ls(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self._fail(path)
        return super().ls(path, *args, **kwargs)

    def info(self, path: str, **kwargs: Any) -> Any:
        self._fail(f"{path}?")
        return super().info(path, **kwargs)

    def _fail(self, path: str) -> None:
        for end, failures in self.failures.items():
            error = failures.pop(0) if path.endswith(end) and failures else None
            if error is not None:
                raise error


fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
