import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from galatea.errors import ConfigError
from pipeline.run_lock import LOCK_FILE, locked
from pipeline.storage import Store
from pipeline.storage_errors import MissingFileError

HOLDER = """
import sys, time
from pipeline.run_lock import locked
from pipeline.storage import Store
with locked(Store(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_by_one_at_a_time_and_freed_at_the_end(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "deep" / "run"))
    other = Store(f"file://{store.url}")

    message = rf"in use by another run \(process {os.getpid()} on "
    with locked(store), pytest.raises(ConfigError, match=message), locked(other):
        pass
    with locked(other):
        assert store.files() == []


def test_a_process_that_is_killed_frees_its_folder(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, store.url], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"

    with pytest.raises(ConfigError, match=rf"process {holder.pid} "), locked(store):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.communicate()

    with locked(store):
        assert (tmp_path / LOCK_FILE).exists()


def test_remote_folders_are_not_locked(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path.name}")

    with locked(store), locked(store):
        assert store.files() == []


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(MissingFileError, match="cannot write"), locked(Store(str(tmp_path / "file" / "run"))):
        pass
