"""TFLite graphs run in torch as they do in LiteRT."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter

from galatea import weights as weight_files
from galatea.errors import WeightsError
from galatea.faces.flatbuffer import read_model
from galatea.faces.regions import Regions
from galatea.faces.tflite import TFLiteGraph, _resize_from_corner, _same_padding
from galatea.images import decode_image, to_tensor

NETWORKS = (
    "blazeface_full_range",
    "facemesh",
    "iris",
    "selfie_segmentation",
)

pytestmark = pytest.mark.weights


def litert(name: str, image: np.ndarray) -> list[np.ndarray]:
    """Outputs of LiteRT for one NHWC image."""
    interpreter = Interpreter(model_path=str(weight_files.path(name)), num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image[None])
    interpreter.invoke()
    return [interpreter.get_tensor(detail["index"]) for detail in interpreter.get_output_details()]


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_equals_litert_and_batches_do_not_mix(weights: Path, astronaut: np.ndarray, name: str) -> None:
    graph = TFLiteGraph.load(weight_files.path(name))
    size = graph.shapes[graph.inputs[0]][1]
    whole = Regions(torch.full((1, 2), 0.5), torch.ones(1), torch.zeros(1))
    image = whole.cut(to_tensor(astronaut), size)
    with torch.no_grad():
        outputs = graph(torch.cat([image.flip(3), image, image * 0.3]))
    for ours, theirs in zip(outputs, litert(name, image[0].permute(1, 2, 0).numpy()), strict=True):
        value = (ours.permute(0, 2, 3, 1) if ours.dim() == 4 else ours)[1].reshape(theirs.shape[1:])
        assert np.abs(value.numpy() - theirs[0]).max() < 1e-4 * max(1.0, np.abs(theirs).max())


@pytest.mark.shared
def test_landmarks_of_photos_equal_litert(weights: Path, shared_dir: Path) -> None:
    graph = TFLiteGraph.load(weight_files.path("facemesh"))
    photos = [decode_image(file.read_bytes()) for file in sorted((shared_dir / "photos").glob("*.jpg"))]
    whole = Regions(torch.full((1, 2), 0.5), torch.ones(1), torch.zeros(1))
    crops = [whole.cut(to_tensor(photo[: min(photo.shape[:2]), : min(photo.shape[:2])]), 192) for photo in photos]
    batch = torch.cat(crops) * 0.5 + 0.5
    with torch.no_grad():
        ours = graph(batch)[0].reshape(len(batch), -1)
    for value, image in zip(ours, batch, strict=True):
        theirs = litert("facemesh", image.permute(1, 2, 0).contiguous().numpy())[0].reshape(-1)
        assert np.abs(value.numpy() - theirs).max() < 0.05


def test_gradients_reach_every_pixel(weights: Path) -> None:
    graph = TFLiteGraph.load(weight_files.path("facemesh"))
    image = torch.rand(1, 3, 192, 192, generator=torch.Generator().manual_seed(0), requires_grad=True)
    (gradient,) = torch.autograd.grad(graph(image)[0].square().sum(), image)
    assert gradient.isfinite().all()
    assert (gradient != 0).float().mean() > 0.99


def test_fully_convolutional_graph_takes_other_sizes(weights: Path) -> None:
    graph = TFLiteGraph.load(weight_files.path("blazeface_full_range"))
    with torch.no_grad():
        boxes, scores = graph(torch.zeros(2, 3, 256, 320))
    assert boxes.shape == (2, 64 * 80, 16)
    assert scores.shape == (2, 64 * 80, 1)


def test_damaged_files_are_refused(weights: Path) -> None:
    data = weight_files.path("blazeface_full_range").read_bytes()
    with pytest.raises(WeightsError, match="TFL3"):
        read_model(b"not a model at all", "text")
    rng = np.random.default_rng(0)
    for _ in range(200):
        broken = bytearray(data[: rng.integers(8, len(data))] if rng.random() < 0.5 else data)
        for place in rng.integers(8, min(len(broken), 20000), 8) if len(broken) > 20 else ():
            broken[min(place, len(broken) - 1)] = rng.integers(256)
        try:
            read_model(bytes(broken), "broken")
        except WeightsError:
            continue  # The only error that damage may cause.


def test_same_padding_puts_the_odd_pixel_last() -> None:
    assert _same_padding(128, 5, 2) == (1, 2)
    assert _same_padding(9, 3, 1) == (1, 1)
    assert _same_padding(7, 3, 2) == (1, 1)


def test_oldest_resize_starts_at_the_corner() -> None:
    value = torch.tensor([[[[0.0, 1.0]]]])
    assert _resize_from_corner(value, (1, 4)).flatten().tolist() == [0.0, 0.5, 1.0, 1.0]
