"""A small stand-in for MakeHuman's assets folder, written from the head model's own vertices."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from galatea.morphable.head import HeadModel
from training.heads.assets import Assets, load_assets
from training.heads.renderer import HeadRenderer

SCALES = "x_scale 5399 11998 1.4\nz_scale 962 5320 1.9\ny_scale 791 881 2.3\n"


@pytest.fixture(scope="session")
def head() -> HeadModel:
    return HeadModel.load()


def write_image(path: Path, color: tuple[int, ...], grain: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(-grain, grain + 1, (64, 64, 1))
    pixels = np.clip(np.array(color[:3]) + noise, 0, 255).astype(np.uint8)
    alpha = np.full((64, 64, 1), color[3] if len(color) == 4 else 255, np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], -1)).save(path)


def write_proxy(path: Path, head: HeadModel, triangles: np.ndarray, lift: tuple[float, float, float]) -> None:
    """Write a proxy that repeats triangles of the head, shifted by `lift` decimetres."""
    path.parent.mkdir(parents=True, exist_ok=True)
    index, corners = np.unique(triangles, return_inverse=True)
    rows = [f"{v} {v} {v} 1 0 0 {lift[0]} {lift[1]} {lift[2]}" for v in head.base_index.numpy()[index]]
    path.write_text(f"basemesh hm08\nobj_file {path.stem}.obj\n{SCALES}verts 0\n" + "\n".join(rows) + "\n")
    faces = [f"f {a}/1 {b}/2 {c}/3" for a, b, c in corners.reshape(-1, 3) + 1]
    vertices = ["v 0 0 0"] * len(index)
    path.with_suffix(".obj").write_text("\n".join([*vertices, "vt 0.2 0.2", "vt 0.8 0.2", "vt 0.5 0.8", *faces]))


@pytest.fixture(scope="session")
def assets_folder(head: HeadModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("assets")
    faces, part = head.faces.numpy(), head.part.numpy()
    middle = head.mean.numpy()[faces].mean(1)
    names = list(head.part_names)
    for name, color in (("lightskinned_male", (210, 165, 140)), ("darkskinned_female", (100, 60, 42))):
        write_image(folder / "skins" / "textures" / f"young_{name}_diffuse.png", color)
    scalp = faces[(part == 0) & (middle[:, 1] > 0.28)]
    brow = faces[(part == 0) & (abs(middle[:, 1] - 0.14) < 0.01) & (middle[:, 2] > 0.15)]
    lash = faces[(part == names.index("socket")) & (middle[:, 2] > 0.19)][:4]
    teeth, tongue = (faces[part == names.index(name)] for name in ("teeth", "tongue"))
    parts = {
        "hair/short01/short01": (scalp, (0, 0.15, 0)),
        "eyebrows/eyebrow001/eyebrow001": (brow, (0, 0, 0.02)),
        "eyelashes/eyelashes01/eyelashes01": (lash, (0, 0, 0.05)),
        "teeth/teeth_base/teeth_base": (teeth, (0, 0, 0)),
        "tongue/tongue01/tongue01": (tongue, (0, 0, 0)),
    }
    for name, (triangles, lift) in parts.items():
        write_proxy(folder / f"{name}.mhclo", head, triangles, lift)
    for name in ("hair/short01/short01", "eyebrows/eyebrow001/eyebrow001", "eyelashes/eyelashes01/eyelashes01"):
        write_image(folder / f"{name}.png", (60, 45, 40, 230))
    for name in ("eyes/materials/grey_eye", "teeth/materials/teeth", "tongue/tongue01/tongue01_diffuse"):
        write_image(folder / f"{name}.png", (180, 170, 165))
    return folder


@pytest.fixture(scope="session")
def assets(assets_folder: Path, head: HeadModel) -> Assets:
    return load_assets(assets_folder, head.base_index.numpy())


@pytest.fixture(scope="session")
def renderer(head: HeadModel, assets: Assets) -> HeadRenderer:
    return HeadRenderer(head, assets)
