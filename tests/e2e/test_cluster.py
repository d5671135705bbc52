"""A cluster as `docker/compose.yaml` starts it, natively: a head without processors, a worker, a shared token."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from PIL import Image
from skimage import data

from pipeline.manifest import read_rows
from pipeline.storage import Store

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent


def _ports(number: int) -> list[int]:
    """Return free ports below those that the system gives away by itself."""
    found: list[int] = []
    for port in range(24_000 + os.getpid() % 4000, 32_000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == number:
            break
    return found


@pytest.fixture
def cluster() -> Iterator[dict[str, str]]:
    """The environment of a shell on the head; `DASHBOARD` is the address for jobs."""
    head, dashboard, client, *agents = _ports(5)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    composed = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["head"]["environment"]
    environment |= {"RAY_AUTH_MODE": composed["RAY_AUTH_MODE"], "RAY_AUTH_TOKEN": "only-for-this-test"}
    environment |= {"RAY_ADDRESS": f"127.0.0.1:{head}", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    environment |= {"PATH": f"{BIN}:{environment['PATH']}", "DASHBOARD": f"http://127.0.0.1:{dashboard}"}
    own = (f"--port={head}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", "--num-cpus=0")
    joined = (f"--address=127.0.0.1:{head}", "--num-cpus=1")
    nodes = []
    try:
        for agent, words in zip(agents, (("--head", *own), joined), strict=True):
            command = ["ray", "start", "--block", f"--dashboard-agent-listen-port={agent}", *words]
            quiet = subprocess.DEVNULL
            nodes.append(subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet))
            _wait_until_healthy(environment)
        yield environment
    finally:
        for node in reversed(nodes):
            node.terminate()
        for node in nodes:
            node.wait(60)


def _wait_until_healthy(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + 90
    command = ["ray", "health-check", "--address", environment["RAY_ADDRESS"]]
    while subprocess.run(command, env=environment, capture_output=True, check=False, timeout=90).returncode:
        assert time.monotonic() < deadline, "the cluster does not come up"
        time.sleep(1)


def _submit(cluster: dict[str, str], *words: str) -> str:
    """Hand a command over as a Ray job, wait for its end and return its log."""
    command = ["ray", "job", "submit", "--address", cluster["DASHBOARD"], "--", "galatea", *words, "tracking=off"]
    job = subprocess.run(command, env=cluster, capture_output=True, text=True, check=False, timeout=300)
    assert job.returncode == 0, job.stdout + job.stderr
    return job.stdout


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(shutil.which("galatea", path=str(BIN)) is None, reason="galatea is not installed beside Python")
def test_a_ray_job_aligns_on_the_workers_of_a_cluster(cluster: dict[str, str], tmp_path: Path, weights: Path) -> None:
    Image.fromarray(data.astronaut()).save(tmp_path / "eileen.png")
    run = str(tmp_path / "run")
    _submit(cluster, "ingest", str(tmp_path / "eileen.png"), "--out", run)
    assert "align        1         1     1" in _submit(cluster, "stage", "align", "--out", run)
    (row,) = read_rows(Store(run), "align", ["status"])
    assert row["status"] == "done"
