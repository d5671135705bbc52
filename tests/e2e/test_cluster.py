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
import requests
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
    """The environment of a shell on the head; `DASHBOARD` is the address for jobs, `METRICS` the worker's page."""
    head, dashboard, client, metrics, *agents = _ports(6)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    composed = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]["head"]["environment"]
    environment |= {"RAY_AUTH_MODE": composed["RAY_AUTH_MODE"], "RAY_AUTH_TOKEN": "only-for-this-test"}
    environment |= {"RAY_ADDRESS": f"127.0.0.1:{head}", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
    environment |= {"PATH": f"{BIN}:{environment['PATH']}", "DASHBOARD": f"http://127.0.0.1:{dashboard}"}
    environment |= {"METRICS": f"http://127.0.0.1:{metrics}/metrics", "RAY_metrics_report_interval_ms": "1000"}
    own = (f"--port={head}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}", "--num-cpus=0")
    joined = (f"--address=127.0.0.1:{head}", f"--metrics-export-port={metrics}", "--num-cpus=1")
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
    assert _metric(cluster, "ray_galatea_records_total", 'stage="align"') == 1.0


def _metric(cluster: dict[str, str], name: str, label: str) -> float:
    """Return a metric of the worker's node, as Prometheus reads it; waits for the node to report."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        page = requests.get(cluster["METRICS"], timeout=30).text
        for line in page.splitlines():
            if line.startswith(name + "{") and label in line:
                return float(line.rsplit(" ", 1)[1])
        time.sleep(1)
    raise AssertionError(f"no {name} on {cluster['METRICS']}")
