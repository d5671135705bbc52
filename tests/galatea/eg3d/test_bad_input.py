"""Wrong shapes, NaN, cameras that are none and files of another kind: errors that say what was expected and found."""

import io

import pytest
import torch
from safetensors.torch import save

from galatea.cameras import orbit
from galatea.eg3d.checkpoint import load_generator
from galatea.eg3d.pickle_import import read_official
from galatea.errors import InputError, WeightsError
from tests.galatea.eg3d.official_pickle import official_bytes

VIEWS = orbit(torch.tensor([0.0, 30.0]), torch.tensor([0.0, 10.0]))


def with_nan(value: torch.Tensor) -> torch.Tensor:
    value = value.clone()
    value.flatten()[1] = float("nan")
    return value


@pytest.mark.parametrize(
    ("z", "c", "kind", "message"),
    [
        (torch.zeros(2, 9), VIEWS, ValueError, r"z: expected shape \(batch, 8\), got \(2, 9\); draw"),
        (torch.zeros(8), VIEWS, ValueError, r"z: expected shape .* got \(8,\)"),
        ([0.0] * 8, VIEWS, ValueError, "z: expected a tensor .* got list"),
        (torch.zeros(2, 8), VIEWS[:, :16], ValueError, r"c: expected shape \(batch, 25\), got \(2, 16\); a camera"),
        (torch.zeros(3, 8), VIEWS, ValueError, r"c: expected a batch of 1 or 3 \(as z\), got 2"),
        (with_nan(torch.zeros(2, 8)), VIEWS, InputError, "z: expected finite numbers, got NaN .* in 1 of 16"),
        (torch.zeros(2, 8), with_nan(VIEWS), InputError, "c: expected finite numbers"),
    ],
)
def test_mapping(tiny_generator, z, c, kind, message) -> None:
    with pytest.raises(kind, match=message):
        tiny_generator.mapping(z, c)


def test_one_condition_serves_all_codes(tiny_generator) -> None:
    z = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    expected = tiny_generator.mapping(z, VIEWS[:1].expand(2, -1))
    assert torch.equal(tiny_generator.mapping(z, VIEWS[:1]), expected)


def test_codes(tiny_generator) -> None:
    ws = torch.zeros(1, tiny_generator.num_ws, 16)
    for wrong in (ws[:, 1:], ws[..., 1:], ws[0]):
        with pytest.raises(ValueError, match=r"ws: expected shape .* got .*`mapping` makes it"):
            tiny_generator.planes(wrong)
    with pytest.raises(InputError, match="ws: expected finite numbers"):
        tiny_generator.planes(with_nan(ws))


def test_rendering(tiny_generator) -> None:
    ws = torch.zeros(2, tiny_generator.num_ws, 16)
    planes = tiny_generator.planes(ws)
    with pytest.raises(ValueError, match=r"planes: expected shape \(batch, 3, 4, 16, 16\), got \(2, 3, 4, 16, 8\)"):
        tiny_generator.render(planes[..., :8], VIEWS, ws)
    with pytest.raises(ValueError, match=r"planes: expected a batch of 1 or 3 \(as cameras\), got 2"):
        tiny_generator.render(planes, VIEWS[[0, 0, 1]], ws[:1])
    with pytest.raises(ValueError, match=r"ws: expected a batch of 1 or 3 \(as cameras\), got 2"):
        tiny_generator.render(planes[:1], VIEWS[[0, 0, 1]], ws)
    with pytest.raises(InputError, match="planes: expected finite numbers"):
        tiny_generator.render(with_nan(planes), VIEWS, ws)
    with pytest.raises(ValueError, match=r"points: expected shape \(batch, n, 3\)"):
        tiny_generator.query(planes, torch.zeros(2, 5, 2))


def test_cameras(tiny_generator) -> None:
    ws = torch.zeros(1, tiny_generator.num_ws, 16)
    planes = tiny_generator.planes(ws)
    scaled, mirrored, flat = VIEWS.clone(), VIEWS.clone(), VIEWS.clone()
    scaled[:, :12] *= 1.1
    mirrored[:, [0, 4, 8]] *= -1
    flat[:, 16] = 0
    for label, reason in ((scaled, "a rotation"), (mirrored, "a rotation"), (flat, "focal"), (with_nan(VIEWS), "NaN")):
        with pytest.raises(InputError, match=f"camera label: .*{reason}"):
            tiny_generator.render(planes, label, ws)
    with pytest.raises(ValueError, match=r"c: expected shape \(batch, 25\), got \(2, 16\)"):
        tiny_generator.render(planes, VIEWS[:, :16], ws)


def saved_by_torch(is_archive: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(2)}, buffer, _use_new_zipfile_serialization=is_archive)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (saved_by_torch(is_archive=True), "torch.save.*PTI.*tuned from"),
        (saved_by_torch(is_archive=False), "torch.save|asks for"),
        (save({"w": torch.zeros(2)}), "safetensors.*load_generator"),
        (b"<html><body>404 Not Found</body></html>", "web page.*download it again"),
        (b"\n<!DOCTYPE HTML><title>Quota exceeded</title>", "web page"),
    ],
)
def test_files_of_another_kind(tmp_path, data, reason) -> None:
    (tmp_path / "ffhq.pkl").write_bytes(data)
    with pytest.raises(WeightsError, match=reason):
        read_official(tmp_path / "ffhq.pkl")


def test_a_download_that_stopped(tmp_path, tiny_generator) -> None:
    data = official_bytes(tiny_generator)
    (tmp_path / "ffhq.pkl").write_bytes(data[: len(data) // 2])
    with pytest.raises(WeightsError, match=r"ffhq.pkl.*truncated"):
        read_official(tmp_path / "ffhq.pkl")


def test_grids_of_several_layers(tmp_path, tiny_generator) -> None:
    tiny_generator.backbone.synthesis.img_channels = 36
    (tmp_path / "panohead.pkl").write_bytes(official_bytes(tiny_generator))
    with pytest.raises(WeightsError, match=r"36 channels for a decoder of 4 features.*12 channels.*PanoHead"):
        read_official(tmp_path / "panohead.pkl")


@pytest.mark.parametrize("name", ["tuned.pt", "model.ckpt", "face.png"])
def test_a_path_that_is_no_checkpoint(tmp_path, name) -> None:
    with pytest.raises(WeightsError, match=r"not a checkpoint of Galatea's; expected 'builtin', or a .json"):
        load_generator(tmp_path / name)
