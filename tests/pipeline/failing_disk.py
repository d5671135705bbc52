"""A disk on which single reads fail, behind the protocol `failing`."""

from __future__ import annotations

from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem


class FailingFileSystem(LocalFileSystem):
    """Fails to open files for reading as `failures` says."""

    protocol = "failing"
    failures: ClassVar[dict[str, list[OSError | None]]] = {}
    """End of the path -> what happens when such a file is opened the next times; None: nothing special."""

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("failing://"))

    def open(self, path: str, mode: str = "rb", *args: Any, **kwargs: Any) -> Any:
        for end, failures in self.failures.items():
            if "r" in mode and path.endswith(end) and failures:
                error = failures.pop(0)
                if error is not None:
                    raise error
        return super().open(path, mode, *args, **kwargs)


fsspec.register_implementation("failing", FailingFileSystem, clobber=True)
