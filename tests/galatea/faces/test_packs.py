"""Packs say what they use, and InsightFace's pack runs InsightFace itself."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from galatea.errors import ConfigError, WeightsError
from galatea.faces import insightface_pack
from galatea.faces.insightface_pack import InsightFacePack, supplied_parts
from galatea.faces.packs import OPEN_WEIGHTS, FacePack, open_pack
from galatea.weights import WEIGHTS

pytestmark = pytest.mark.weights


def detector_model() -> onnx.ModelProto:
    """A network of SCRFD's form that sees a face at each white cell of stride 32.

    Nine outputs: scores, boxes and points at strides 8, 16 and 32, two anchors a cell. A face reaches 1.5 strides from
    the cell's corner to each side; its five points are fixed.
    """
    points = [-0.5, -0.4, 0.5, -0.4, 0.0, 0.1, -0.4, 0.6, 0.4, 0.6]
    nodes, outputs = [], {}
    constants = {"shift": [-0.9], "gain": [10.0], "two": [1, 2], "flat": [-1, 1]}
    constants |= {"box": [1.5] * 4, "points": points}
    for stride in (8, 16, 32):
        nodes += [
            helper.make_node(
                "AveragePool", ["image"], [f"mean{stride}"], kernel_shape=[stride] * 2, strides=[stride] * 2
            ),
            helper.make_node("ReduceMean", [f"mean{stride}"], [f"grey{stride}"], axes=[1], keepdims=1),
            helper.make_node("Add", [f"grey{stride}", "shift"], [f"over{stride}"]),
            helper.make_node("Mul", [f"over{stride}", "gain"], [f"logit{stride}"]),
            helper.make_node("Sigmoid", [f"logit{stride}"], [f"cell{stride}"]),
            helper.make_node("Reshape", [f"cell{stride}", "flat"], [f"column{stride}"]),
            helper.make_node("Tile", [f"column{stride}", "two"], [f"pair{stride}"]),
            helper.make_node("Reshape", [f"pair{stride}", "flat"], [f"all{stride}"]),
        ]
        zero = f"zero{stride}"
        nodes.append(helper.make_node("Mul", [f"all{stride}", "none"], [zero]))
        nodes.append(
            helper.make_node(
                "Identity" if stride == 32 else "Mul",
                [f"all{stride}", *([] if stride == 32 else ["none"])],
                [f"score{stride}"],
            )
        )
        nodes.append(helper.make_node("Add", [zero, "box"], [f"box{stride}"]))
        nodes.append(helper.make_node("Add", [zero, "points"], [f"points{stride}"]))
    for kind, width in (("score", 1), ("box", 4), ("points", 10)):
        outputs |= {f"{kind}{stride}": width for stride in (8, 16, 32)}
    constants["none"] = [0.0]
    initializers = [
        numpy_helper.from_array(np.array(value, np.int64 if name in {"two", "flat"} else np.float32), name)
        for name, value in constants.items()
    ]
    return model(nodes, [None, 3, None, None], {name: [None, width] for name, width in outputs.items()}, initializers)


def recogniser_model() -> onnx.ModelProto:
    """A network of ArcFace's form: the mean colour of sixteen tiles of a 112 pixel chip."""
    nodes = [
        helper.make_node("AveragePool", ["image"], ["tiles"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["tiles"], ["embedding"]),
    ]
    return model(nodes, [None, 3, 112, 112], {"embedding": [None, 48]}, [])


def model(nodes: list, image: list, outputs: dict[str, list], initializers: list) -> onnx.ModelProto:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    inputs = [helper.make_tensor_value_info("image", TensorProto.FLOAT, image)]
    graph = helper.make_graph(nodes, "tiny", inputs, values, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


@pytest.fixture(scope="module")
def research_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("insightface") / "models" / "buffalo_l"
    folder.mkdir(parents=True)
    onnx.save(detector_model(), folder / "det_tiny.onnx")
    onnx.save(recogniser_model(), folder / "rec_tiny.onnx")
    return folder.parent.parent


@pytest.fixture(scope="module")
def research_pack(weights: Path, research_folder: Path) -> FacePack:
    return open_pack("insightface", root=research_folder)


def test_insightface_detects_through_its_own_pipeline(research_pack: FacePack) -> None:
    image = np.zeros((640, 640, 3), np.uint8)
    image[320:352, 160:192] = 255
    nothing, (face,) = research_pack.detect([np.zeros((640, 640, 3), np.uint8), image])
    assert nothing == []
    assert np.allclose(face.box, [160 - 48, 320 - 48, 160 + 48, 320 + 48], atol=1)
    assert np.allclose(face.landmarks_5[0], [160 - 16, 320 - 12.8], atol=1)
    assert face.landmarks_5[0, 0] < face.landmarks_5[1, 0]


def test_insightface_embeds_aligned_chips(research_pack: FacePack, astronaut_crop: torch.Tensor) -> None:
    embedding = research_pack.embed(torch.cat([astronaut_crop, astronaut_crop * 0.9, astronaut_crop.flip(3)]))
    assert embedding.shape == (3, 48)
    assert torch.allclose(embedding.norm(dim=1), torch.ones(3), atol=1e-5)
    similarity = research_pack.identity_similarity(embedding[:1].expand(3, -1), embedding)
    assert similarity[0] == pytest.approx(1)
    assert similarity[1] > similarity[2]


def test_insightface_facts_are_those_of_the_user_s_files_and_forbid_commercial_use(
    research_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pack"
    shutil.copytree(research_folder / "models" / "buffalo_l", folder)
    detector, recogniser = supplied_parts(folder)
    assert (detector.name, recogniser.name) == ("insightface_det_tiny", "insightface_rec_tiny")
    assert not recogniser.is_commercial_use_allowed
    assert "non-commercial" in detector.licence
    shutil.copy(folder / "rec_tiny.onnx", folder / "det_tiny.onnx")
    assert supplied_parts(folder)[0].sha256 == recogniser.sha256 != detector.sha256


def test_nothing_is_downloaded_where_there_is_no_folder(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(insightface_pack, "OWN_FOLDER", tmp_path / "own")
    with pytest.raises(WeightsError, match=r"no \.onnx file in .*own"):
        open_pack("insightface")
    assert list(tmp_path.iterdir()) == []


def test_missing_or_broken_insightface_models_say_what_to_do(weights: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no \.onnx file.*non-commercial.*faces\.root=FOLDER.*faces\.pack=open"):
        open_pack("insightface", root=tmp_path)
    (tmp_path / "broken.onnx").write_bytes(b"not a network")
    with pytest.raises(WeightsError, match="could not be opened"):
        InsightFacePack(root=tmp_path)
    (tmp_path / "broken.onnx").unlink()
    onnx.save(detector_model(), tmp_path / "det_tiny.onnx")
    with pytest.raises(WeightsError, match="no recognition model"):
        InsightFacePack(root=tmp_path)


def test_unknown_pack_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"faces\.pack: unknown face pack 'opne'"):
        open_pack("opne")


def test_nothing_is_fetched_that_the_open_pack_does_not_use() -> None:
    assert set(WEIGHTS) == set(OPEN_WEIGHTS)


def test_missing_weights_name_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GALATEA_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="galatea models fetch open"):
        open_pack("open")
