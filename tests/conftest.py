"""Fixtures for every test: weights of the open pack, sample photos."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage import data

from galatea import weights as weight_files

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """Folder with sample photos and reference numbers: $GALATEA_SHARED, or `shared` beside the checkout."""
    folder = Path(os.environ.get("GALATEA_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "photos").is_dir():
        pytest.skip(f"no sample photos in {folder}; set GALATEA_SHARED to their folder")
    return folder


@pytest.fixture(scope="session")
def weights() -> Path:
    """Fetch the open pack once; returns the folder of the weight files."""
    return weight_files.fetch("open")[0].parent


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """Photo of astronaut Eileen Collins (NASA, public domain), 512x512 RGB."""
    return np.ascontiguousarray(data.astronaut()[..., :3])


@pytest.fixture(scope="session")
def ray_address() -> Iterator[str]:
    """Address of a Ray cluster of two CPUs on this machine, shared by all tests that need one."""
    import ray

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    context = ray.init(
        address="local", num_cpus=2, include_dashboard=False, object_store_memory=128 << 20, log_to_driver=False
    )
    yield context.address_info["address"]
    ray.shutdown()


@pytest.fixture(scope="session")
def s3_options() -> Iterator[dict[str, Any]]:
    """fsspec options of a real S3 protocol server over HTTP, with an empty bucket called archive."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="archive")
    yield {"endpoint_url": endpoint, "key": "test", "secret": "test"}
    server.stop()
