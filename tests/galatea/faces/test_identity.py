"""The identity network is dlib's, and tells people apart."""

from pathlib import Path

import dlib
import numpy as np
import pytest
import torch

from galatea import weights as weight_files
from galatea.errors import WeightsError
from galatea.faces.alignment import portrait_crop
from galatea.faces.dlib_format import read_network
from galatea.faces.identity import face_chips, identity_similarity
from galatea.faces.packs import FacePack
from galatea.images import decode_image, to_tensor, to_uint8

pytestmark = pytest.mark.weights


def test_descriptors_equal_dlibs(pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    reference = dlib.face_recognition_model_v1(str(weight_files.path("dlib_face_recognition")))
    with torch.no_grad():
        face = to_uint8(face_chips(astronaut_crop, pack.landmarks(astronaut_crop).points))[0]
        noise = np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8)
        ours = pack.identity_net(to_tensor([face, noise])).numpy()
    for chip, value in zip((face, noise), ours, strict=True):
        assert np.abs(np.array(reference.compute_face_descriptor(chip)) - value).max() < 1e-4


def test_chip_places_the_eyes_as_dlib_does(pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    with torch.no_grad():
        points = pack.landmarks(astronaut_crop).points
        marked = torch.zeros_like(astronaut_crop)
        for corner in (33, 263):
            x, y = (points[0, corner] * 512).long().tolist()
            marked[..., y - 2 : y + 3, x - 2 : x + 3] = 1
        chip = face_chips(marked, points)[0, 0]
    # Template corners are at 0.12 and 0.86 of the face, which has a quarter of padding on each side.
    left, right = (chip[:, :75], chip[:, 75:])
    assert divmod(left.argmax().item(), 75)[1] == pytest.approx((0.1206 + 0.25) / 1.5 * 150, abs=4)
    assert divmod(right.argmax().item(), 75)[1] + 75 == pytest.approx((0.8596 + 0.25) / 1.5 * 150, abs=4)


def test_same_face_is_nearer_than_another(pack: FacePack, astronaut: np.ndarray, group_photo: np.ndarray) -> None:
    def crops(image: np.ndarray) -> torch.Tensor:
        return to_tensor([portrait_crop(image, face.landmarks_5, 256).image for face in pack.detect([image])[0]])

    darker = (astronaut * 0.7).astype(np.uint8)[::2, ::2]
    with torch.no_grad():
        person, again, others = (pack.embed(crops(image)) for image in (astronaut, darker, group_photo))
    assert pack.identity_similarity(person, again).item() > 0.7
    assert pack.identity_similarity(person.expand(6, -1), others).max() < 0.35


@pytest.mark.shared
def test_photos_of_one_person_match(pack: FacePack, shared_dir: Path) -> None:
    embeddings = []
    for name in ("biden", "biden2", "obama", "obama2"):
        image = decode_image((shared_dir / "photos" / f"{name}.jpg").read_bytes())
        crop = portrait_crop(image, pack.detect([image])[0][0].landmarks_5)
        with torch.no_grad():
            embeddings.append(pack.embed(to_tensor(crop.image))[0])
    distance = torch.cdist(torch.stack(embeddings), torch.stack(embeddings))
    assert distance[0, 1] < 0.6
    assert distance[2, 3] < 0.6
    assert distance[:2, 2:].min() > 0.7


def test_gradients_reach_the_crop(pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    crop = astronaut_crop.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(pack.embed(crop).square().sum(), crop)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_similarity_falls_with_distance() -> None:
    step = torch.zeros(5, 128)
    step[:, 0] = torch.tensor([0.0, 0.3, 0.6, 0.9, 2.0])
    similarity = identity_similarity(torch.zeros(5, 128), step)
    assert similarity[0] == pytest.approx(1.0)
    assert similarity[2] == pytest.approx(0.5, abs=0.01)
    assert (similarity.diff() < 0).all()
    assert similarity[4] < 0.01


def test_damaged_files_are_refused(weights: Path) -> None:
    data = weight_files.path("dlib_face_recognition").read_bytes()
    for broken in (b"", b"text that is not a network", data[:100], data[:-1], data + b"\x01", data[:400000]):
        with pytest.raises(WeightsError, match=r"net\.dat is not a dlib"):
            read_network(broken, "net.dat")
