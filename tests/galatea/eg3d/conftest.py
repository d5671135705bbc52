"""A tiny generator, and the reference numbers of a small one."""

from pathlib import Path

import numpy as np
import pytest
import torch

from galatea.eg3d import GeneratorConfig, TriPlaneGenerator
from tests.small_generators import SMALL_PLAIN


@pytest.fixture
def tiny_config() -> GeneratorConfig:
    return SMALL_PLAIN


@pytest.fixture
def tiny_generator(tiny_config: GeneratorConfig) -> TriPlaneGenerator:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = TriPlaneGenerator(tiny_config)
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith(("bias", "noise_strength")):
                    parameter.add_(0.1 * torch.randn_like(parameter))
            generator.w_avg.normal_()
    return generator.eval().requires_grad_(False)


class Reference:
    """Numbers made with the reference implementation, by key."""

    def __init__(self, path: Path) -> None:
        self.arrays = np.load(path)

    def __getitem__(self, key: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[key])

    def keys(self, prefix: str) -> list[str]:
        return [key for key in self.arrays.files if key.startswith(prefix)]


@pytest.fixture(scope="session")
def reference(shared_dir: Path) -> Reference:
    return Reference(shared_dir / "reference" / "eg3d_small_w512.npz")


@pytest.fixture(scope="session")
def reference_generator(reference: Reference) -> TriPlaneGenerator:
    config = GeneratorConfig(
        z_dim=64, channel_base=2048, channel_max=64, neural_rendering_resolution=32, superresolution="2X"
    )
    generator = TriPlaneGenerator(config)
    state = {key.removeprefix("sd/"): reference[key] for key in reference.keys("sd/")}
    del state["superresolution.resample_filter"]
    generator.load_state_dict(state)
    return generator.eval()
