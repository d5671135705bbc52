"""What in an input was made by the run itself, and is no photo of the archive."""

from __future__ import annotations

from pathlib import Path

from pipeline.plan import STEPS
from pipeline.storage import is_local


class RunFolder:
    """The run folder where it lies inside an input, however the path to either is written (links, `..`)."""

    def __init__(self, url: str) -> None:
        """Remember the folder.

        Args:
            url: absolute path or URL; empty where there is none.
        """
        self._is_local = is_local(url)
        self._folder = self._real(url) + "/" if url else ""
        self._real_folders: dict[str, str] = {}

    def holds(self, uri: str, source: str) -> bool:
        """Whether a file that was found in an input lies in the run folder.

        Where the input is (in) the run folder itself, only what the stages made counts.

        Args:
            uri: of the file.
            source: the folder, prefix or glob, as an absolute path or URL.
        """
        if not self._folder or is_local(uri) != self._is_local:
            return False
        path = self._real_of(uri.rpartition("/")[0]) + "/"
        if not path.startswith(self._folder):
            return False
        is_chosen = f"{self._real_of(source)}/".startswith(self._folder)
        return not is_chosen or path[len(self._folder) :].partition("/")[0] in STEPS

    def _real_of(self, folder: str) -> str:
        if folder not in self._real_folders:
            self._real_folders[folder] = self._real(folder)
        return self._real_folders[folder]

    def _real(self, folder: str) -> str:
        return str(Path(folder).resolve()) if self._is_local else folder.rstrip("/")
