"""What the reader with its own weights reads of rendered heads that do one thing at a time."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from galatea.cameras import orbit
from galatea.faces.reader import FaceReader
from galatea.images import to_tensor
from galatea.morphable.actions import ACTION_INDEX, action_vector
from galatea.morphable.head import HeadModel
from training.heads.assets import load_assets
from training.heads.people import sample_head
from training.heads.renderer import HeadRenderer

PEOPLE = (3, 8, 13)
DOING: dict[str, tuple[str, ...]] = {
    name: (name,) if name in ACTION_INDEX else (f"{name}Left", f"{name}Right")
    for name in ("jawOpen", "mouthSmile", "mouthFrown", "mouthPucker", "mouthFunnel", "browInnerUp", "eyeBlink",
                 "eyeLookUp", "eyeLookDown")
}  # fmt: skip


@pytest.fixture(scope="module")
def expressions(shared_dir: Path, head: HeadModel) -> dict[str, torch.Tensor]:
    """What is read of some people at rest, and doing each thing."""
    folder = shared_dir / "makehuman"
    if not folder.is_dir():
        pytest.skip(f"no MakeHuman assets in {folder}")
    renderer = HeadRenderer(head, load_assets(folder, head.base_index.numpy()))
    camera = orbit(torch.zeros(1), torch.zeros(1)).numpy()
    crops = []
    for names in ((), *DOING.values()):
        for person in PEOPLE:
            sample = sample_head(person, 0, 1, head, renderer.assets)
            weights = action_vector(dict.fromkeys(names, 0.9)).numpy()
            picture = renderer.render(replace(sample, cameras=camera, expression=weights), 256)[0]
            cover = picture.alpha[..., None] / 255.0
            crops.append((picture.rgb * cover + 110 * (1 - cover)).astype(np.uint8))
    with torch.no_grad():
        read = FaceReader.load().read(to_tensor(crops)).expression.reshape(-1, len(PEOPLE), 52)
    return dict(zip(["rest", *DOING], read, strict=True))


@pytest.mark.shared
@pytest.mark.parametrize("name", DOING)
def test_what_a_rendered_head_does_is_read(expressions: dict[str, torch.Tensor], name: str) -> None:
    actions = [ACTION_INDEX[action] for action in DOING[name]]
    doing, rest = (expressions[case][:, actions].mean() for case in (name, "rest"))
    assert doing - rest > 0.25
