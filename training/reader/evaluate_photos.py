"""How the reader reads real photos and frames, of which people have said what they show."""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from skimage import data
from torch import Tensor

from galatea.animation.video import read_video
from galatea.faces.alignment import portrait_crop
from galatea.faces.packs import FacePack
from galatea.faces.reader import FaceReader
from galatea.faces.reading import FaceReading
from galatea.images import decode_image, to_tensor
from galatea.metrics.pose_expression import inter_pupil_distance
from galatea.morphable.actions import ACTION_INDEX, mirror_permutation
from galatea.morphable.correspondence import load_correspondence

CLOSED = ("d18_96", "d18_186", "d11_150", "d11_153")
OPEN = ("d18_0", "d18_33", "d11_0", "d11_51", "obama_0", "obama2_0", "s0_0", "s3_0", "s5_0", "s10_0", "d11_120")
WIDE = ("d18_132", "d18_147", "d18_82")
SHUT = ("d18_0", "biden_0", "s3_0", "s5_0", "s9_0", "s0_0", "d11_0")
SMILES = ("biden2_0", "obama_0")
SERIOUS = ("biden_0", "s3_0", "s5_0", "d18_49", "s0_0")
"""What pictures of the photo and driving folders show, by eye: NAME_NUMBER, the number of the face or frame."""
FRAMES = {"d11": (0, 51, 103, 120, 150, 153, 206), "d18": (0, 16, 33, 49, 82, 96, 115, 132, 147, 186),
          "d20": (0, 66, 93, 102, 120, 147)}  # fmt: skip
ASTRONAUT_FIVE = np.array([[202.6, 110.3], [247.3, 107.7], [225.5, 135.0], [207.5, 151.5], [247.0, 149.0]])
RELIABLE_SPREAD = 0.03
"""FaceMesh's points with a smaller spread on renders are its reliable ones."""
NOISE_LEVEL, NOISE_FRAMES = 4.0, 24
"""Camera noise of the jitter test: standard deviation in grey levels of 255, and frames."""


@dataclass(frozen=True)
class Portraits:
    """Portrait crops of real faces, by name."""

    names: tuple[str, ...]
    images: UInt8[np.ndarray, "n 512 512 3"]

    @property
    def crops(self) -> Float[Tensor, "n 3 512 512"]:
        """As the library takes them."""
        return to_tensor(list(self.images))

    def rows(self, names: tuple[str, ...]) -> list[int]:
        """Return where the named ones are; missing ones are left out."""
        return [self.names.index(name) for name in names if name in self.names]


def load_portraits(photos: Path, driving: Path | None, pack: FacePack) -> Portraits:
    """Cut the portrait crops of all faces of the photos, and of chosen frames of the videos."""
    names: list[str] = []
    images: list[np.ndarray] = []
    for path in sorted(photos.glob("*.jpg")):
        image = decode_image(path.read_bytes())
        for number, face in enumerate(pack.detect([image])[0]):
            names.append(f"{path.stem}_{number}")
            images.append(portrait_crop(image, face.landmarks_5).image)
    for stem, numbers in FRAMES.items() if driving is not None else ():
        frames = read_video((Path(str(driving)) / f"{stem}.mp4").read_bytes()).frames
        for number in numbers:
            names.append(f"{stem}_{number}")
            images.append(portrait_crop(frames[number], pack.detect([frames[number]])[0][0].landmarks_5).image)
    return Portraits(tuple(names), np.stack(images))


def astronaut_crop() -> UInt8[np.ndarray, "512 512 3"]:
    """Return the portrait crop of scikit-image's photo of Eileen Collins (NASA, public domain)."""
    photo = np.ascontiguousarray(data.astronaut()[..., :3])  # type: ignore[no-untyped-call]
    return portrait_crop(photo, ASTRONAUT_FIVE).image


def worse_pictures(image: UInt8[np.ndarray, "s s 3"]) -> dict[str, UInt8[np.ndarray, "s s 3"]]:
    """Return a picture mirrored, turned, small, dark, noisy, grey, half covered."""
    size = image.shape[0]
    noise = np.random.default_rng(0).normal(0, 25, image.shape)
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), 20, 1.0)
    small = cv2.resize(cv2.resize(image, (48, 48), interpolation=cv2.INTER_AREA), (size, size))
    covered = image.copy()
    covered[int(0.6 * size) :, int(0.5 * size) :] = 90
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return {
        "photo": image,
        "mirrored": np.ascontiguousarray(image[:, ::-1]),
        "turned": cv2.warpAffine(image, turn, (size, size), borderMode=cv2.BORDER_REPLICATE),
        "48 pixels": small,
        "dark": (image * 0.25).astype(np.uint8),
        "noisy": (image + noise).clip(0, 255).astype(np.uint8),
        "grey": np.asarray(grey),
        "covered": covered,
    }


def said_figures(portraits: Portraits, expression: Float[Tensor, "n 52"]) -> dict[str, float]:
    """Return the worst case of everything that people have said about the pictures."""

    def value(names: tuple[str, ...], *actions: str) -> Tensor:
        return expression[portraits.rows(names)][:, [ACTION_INDEX[name] for name in actions]].mean(1)

    blink, smile = ("eyeBlinkLeft", "eyeBlinkRight"), ("mouthSmileLeft", "mouthSmileRight")
    cases = {
        "closed_eyes_blink_min": (CLOSED, blink, torch.amin),
        "open_eyes_blink_max": (OPEN, blink, torch.amax),
        "wide_mouth_jaw_open_min": (WIDE, ("jawOpen",), torch.amin),
        "shut_mouth_jaw_open_max": (SHUT, ("jawOpen",), torch.amax),
        "smile_min": (SMILES, smile, torch.amin),
        "serious_smile_max": (SERIOUS, smile, torch.amax),
    }
    return {
        name: float(worst(value(pictures, *actions)))
        for name, (pictures, actions, worst) in cases.items()
        if portraits.rows(pictures)
    }


@torch.no_grad()
def mirror_figures(reader: FaceReader, crops: Float[Tensor, "n 3 s s"], reading: FaceReading) -> dict[str, float]:
    """Return how far readings of mirrored photos are from mirrored readings."""
    other = reader.read(crops.flip(3))
    difference = other.expression[:, list(mirror_permutation())] - reading.expression
    angles = other.angles_deg() * torch.tensor([-1.0, 1.0, -1.0]) - reading.angles_deg()
    return {
        "mirror_expression_max": float(difference.abs().max()),
        "mirror_angle_max_deg": float(angles.abs().max()),
    }


@torch.no_grad()
def jitter(reader: FaceReader, crop: Float[Tensor, "3 s s"]) -> float:
    """Return the standard deviation of points under camera noise, in inter-pupil distances (mean over points)."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(NOISE_FRAMES, *crop.shape, generator=generator) * NOISE_LEVEL / 127.5
    points = reader.read((crop + noise).clamp(-1, 1)).points
    spread = points.std(0).square().sum(-1).sqrt()
    return float(spread.mean() / inter_pupil_distance(points).mean())


def agreement(points: Float[Tensor, "n 478 2"], facemesh: Float[Tensor, "n 478 2"]) -> float:
    """Return the median distance to FaceMesh's reliable points, in inter-pupil distances."""
    reliable = torch.nonzero(load_correspondence().spread[:468] < RELIABLE_SPREAD)[:, 0]
    distance = (points - facemesh)[:, reliable].norm(dim=-1) / inter_pupil_distance(facemesh)[:, None]
    return float(distance.median())


@torch.no_grad()
def milliseconds(reader: FaceReader, crops: Float[Tensor, "n 3 s s"], repeats: int = 5) -> float:
    """Return the processor time of one face in batches of 16, one thread; the best of some repeats."""
    batch = crops[torch.arange(16) % len(crops)]
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        reader.read(batch)
        best = min(best, time.process_time() - start)
    return 1000 * best / len(batch)


def gradient_error(reader: FaceReader, crop: Float[Tensor, "3 s s"]) -> float:
    """Return the relative difference of a directional derivative by gradients and by differences."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 3, 16, 16, generator=generator)
    direction = torch.nn.functional.interpolate(coarse, crop.shape[-2:]).double()
    # In double precision, so that differences of small steps are not rounding.
    reader, crop = copy.deepcopy(reader).double(), crop.double()
    start = reader.regions(crop[None])

    def score(picture: Tensor) -> Tensor:
        reading = reader.read(picture, start)
        return 100 * reading.points.sum() + reading.expression.sum() + reading.rotation.sum()

    picture = crop[None].clone().requires_grad_(True)
    slope = (torch.autograd.grad(score(picture), picture)[0] * direction).sum()
    step = 1e-6
    with torch.no_grad():
        found = (score(crop[None] + step * direction) - score(crop[None] - step * direction)) / (2 * step)
    return float((slope - found).abs() / found.abs().clamp_min(1e-6))
