"""The container files, as far as a machine without an engine can check them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
COMPOSE = ROOT / "docker" / "compose.yaml"
DOCKERFILE = ROOT / "docker" / "Dockerfile"


def test_the_dockerfile_passes_the_linter() -> None:
    linter = Path(sys.executable).parent / "hadolint"
    answer = subprocess.run([str(linter), str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout


def test_the_image_is_installed_as_the_makefile_installs() -> None:
    dockerfile, makefile = DOCKERFILE.read_text(), (ROOT / "Makefile").read_text()
    torch = re.search(r"^TORCH \?= (torch==[\d.]+)$", makefile, re.MULTILINE)
    assert torch is not None
    assert dockerfile.count(f'ARG TORCH="{torch[1]}"') == 2
    for step in ("--constraint requirements.lock", "--no-deps --requirement requirements.lock", "--no-build-isolation"):
        assert step in makefile
        assert dockerfile.count(step) == 2


def test_nothing_runs_as_root() -> None:
    final_stages = re.split(r"^FROM ", DOCKERFILE.read_text(), flags=re.MULTILINE)[-2:]
    assert all("USER 10001" in stage for stage in final_stages)


def test_ports_are_open_on_this_machine_only() -> None:
    services = yaml.safe_load(COMPOSE.read_text())["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports
    assert all(str(port).startswith("127.0.0.1:") for port in ports)
    assert {"head", "worker", "store", "mlflow"} <= set(services)
    images = {service["image"] for service in services.values()}
    assert all(":" in image and not image.endswith(":latest") for image in images)


def test_compose_accepts_the_file() -> None:
    docker = shutil.which("docker")
    command = [docker or "docker", "compose", "-f", str(COMPOSE), "config", "--quiet"]
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker compose is not installed")
    environment = {**os.environ, "STORE_PASSWORD": "only-for-the-check", "RAY_AUTH_TOKEN": "too"}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
