"""The open pack, opened once, and photos with known faces."""

from pathlib import Path

import insightface
import numpy as np
import pytest
import torch

from galatea.faces.alignment import portrait_crop
from galatea.faces.packs import FacePack, open_pack
from galatea.images import decode_image, to_tensor


@pytest.fixture(scope="session")
def pack(weights: Path) -> FacePack:
    return open_pack("open")


@pytest.fixture(scope="session")
def mesh_pack(weights: Path) -> FacePack:
    """A pack whose landmarks are MediaPipe's."""
    return FacePack(use_reader=False)


@pytest.fixture(scope="session")
def group_photo() -> np.ndarray:
    """Six people, in the photo that ships with insightface."""
    return decode_image((Path(insightface.__file__).parent / "data" / "images" / "t1.jpg").read_bytes())


@pytest.fixture(scope="session")
def astronaut_crop(pack: FacePack, astronaut: np.ndarray) -> torch.Tensor:
    """Portrait crop (1, 3, 512, 512) in [-1, 1]."""
    (face,) = pack.detect([astronaut])[0]
    return to_tensor(portrait_crop(astronaut, face.landmarks_5).image)
