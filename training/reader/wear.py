"""Things on and before faces, drawn over pictures: make-up, brows, beards, glasses, strands, hats, hands, blocks."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

from galatea.faces.landmarks import OUTER_LIPS
from galatea.faces.reader_network import INPUT_SIZE
from training.reader.augment import Scene
from training.reader.backgrounds import colour_noise

# fmt: off
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
JAW = (234, 93, 132, 58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288, 361, 323, 454)
INNER_BEARD = (454, 425, 426, 2, 206, 205, 234)
MOUSTACHE = (186, 92, 165, 167, 164, 393, 391, 322, 410, 291, 0, 61)
BROWS = ((70, 63, 105, 66, 107, 55, 65, 52, 53, 46), (300, 293, 334, 296, 336, 285, 295, 282, 283, 276))
EYES = ((33, 133, 159, 145), (362, 263, 386, 374))
UPPER_LIDS = ((33, 246, 161, 160, 159, 158, 157, 173, 133), (263, 466, 388, 387, 386, 385, 384, 398, 362))
CHIN, MOUTH, FOREHEAD, CHEEKS = 152, 13, 10, (50, 280)
# fmt: on
LASHES = 0.8
"""Share of pictures with darker lashes than the renders', clear ones too."""
MAX_HANG = 0.014
"""How far lashes hang down, in region sides."""
_SHIFT = 4


def wear(image: np.ndarray, scene: Scene, rng: np.random.Generator, share: float = 1.0) -> Float[np.ndarray, "s s 3"]:
    """Draw some of everything over a composed picture, each with `share` of its usual probability."""
    points = scene.view.project(scene.points3)
    is_frontal = abs(float(scene.view.rotation[0, 2])) < 0.75
    image = image.copy()
    if rng.random() < 0.3 * share:
        _make_up(image, points, scene, rng)
    if rng.random() < LASHES:
        _lashes(image, points, rng)
    if rng.random() < 0.25 * share:
        _brows(image, points, scene, rng)
    if rng.random() < 0.25 * share:
        _beard(image, points, scene, rng)
    if rng.random() < 0.25 * share and is_frontal:
        _glasses(image, scene, rng)
    if rng.random() < 0.2 * share:
        _strands(image, points, rng)
    if rng.random() < 0.08 * share:
        _hat(image, points, rng)
    if rng.random() < 0.15 * share:
        _occluder(image, points, rng)
    return image


def with_lashes(image: np.ndarray, scene: Scene, rng: np.random.Generator) -> Float[np.ndarray, "s s 3"]:
    """Draw lashes over most pictures: else the dark line of closed eyes is taken for eyes that are open a little."""
    image = image.copy()
    if rng.random() < LASHES:
        _lashes(image, scene.view.project(scene.points3), rng)
    return image


def polygon(points: np.ndarray, size: int, soft: float = 0.0) -> Float[np.ndarray, "s s"]:
    """Return the coverage of a polygon given in region coordinates, its edge blurred by `soft` pixels of 128."""
    mask, soft = np.zeros((size, size), np.uint8), soft * size / INPUT_SIZE
    cv2.fillPoly(mask, [_fixed(points, size)], 255, cv2.LINE_AA, _SHIFT)
    result = mask.astype(np.float32) / 255
    return cv2.GaussianBlur(result, (0, 0), soft) if soft > 0.2 else result


def _fixed(points: np.ndarray, size: int) -> np.ndarray:
    """Return region coordinates as OpenCV's fixed-point pixels."""
    pixels = np.clip(np.asarray(points) * size - 0.5, -4 * size, 5 * size)
    return np.round(pixels * (1 << _SHIFT)).astype(np.int32)


def _blend(image: np.ndarray, color: np.ndarray, weight: np.ndarray) -> None:
    image += (np.asarray(color, np.float32) - image) * weight[..., None]


def _make_up(image: np.ndarray, points: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
    """Lips of another colour, shade on lids, rouge."""
    size = scene.size
    lips = polygon(points[list(OUTER_LIPS)], size, 0.6) * (1 - polygon(points[list(INNER_LIPS)], size, 0.5))
    visible = scene.alpha
    factor = np.array([rng.uniform(0.75, 1.25), rng.uniform(0.45, 1.05), rng.uniform(0.5, 1.1)], np.float32)
    image *= 1 + (factor - 1) * (lips * visible * rng.uniform(0.3, 1))[..., None]
    if rng.random() < 0.5:
        colour = rng.uniform(0, 0.5, 3)
        for lid, brow in zip(UPPER_LIDS, BROWS, strict=True):
            above = 0.55 * points[list(brow[4::-1])] + 0.45 * points[list(lid[8:3:-1])]
            outline = np.concatenate([points[list(lid)], above])
            _blend(image, colour, polygon(outline, size, 1.0) * scene.skin * rng.uniform(0.05, 0.5))


def _lashes(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> None:
    """Dark upper lids: eyeliner, or thick lashes that blur into a band and may hang over what is below."""
    size = image.shape[0]
    thick = max(1, round(size / INPUT_SIZE * rng.uniform(0.6, 2.8)))
    colour, strength = np.full(3, rng.uniform(0, 0.2)), rng.uniform(0.25, 0.9)
    hang = rng.uniform(0, MAX_HANG) if rng.random() < 0.5 else 0.0
    line = np.zeros((size, size), np.uint8)
    for lid in UPPER_LIDS:
        for drop in (0.0, hang):
            band = points[list(lid)] + np.array([0.0, drop])
            cv2.polylines(line, [_fixed(band, size)], False, 255, thick, cv2.LINE_AA, _SHIFT)
    soft = cv2.GaussianBlur(line.astype(np.float32) / 255, (0, 0), float(size / INPUT_SIZE * rng.uniform(0.2, 0.8)))
    _blend(image, colour, soft * strength)


def _brows(image: np.ndarray, points: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
    """Thicker, thinner-edged or lighter brows than the render's."""
    size = scene.size
    colour, strength = rng.uniform(0.02, 0.55) * np.array([1.0, 0.85, 0.7]), rng.uniform(0.2, 0.85)
    for brow in BROWS:
        outline = points[list(brow)]
        middle = outline.mean(0)
        outline = middle + (outline - middle) * np.array([1.0, rng.uniform(0.5, 1.3)])
        _blend(image, colour, polygon(outline, size, rng.uniform(0.4, 1.2)) * scene.skin * strength)


def _beard(image: np.ndarray, points: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
    """Stubble to full beard, moustache, goatee."""
    size = scene.size
    hair = rng.uniform(0.02, 0.7) * np.array([1.0, rng.uniform(0.75, 1), rng.uniform(0.55, 1)], np.float32)
    grain = colour_noise(rng, int(rng.integers(40, 90)), np.zeros(3), rng.uniform(0.05, 0.3), size)
    texture = (hair * (1 + grain.mean(2, keepdims=True))).clip(0, 1)
    strength = rng.uniform(0.15, 0.95)
    weight = np.zeros((size, size), np.float32)
    kind, soft = rng.random(), rng.uniform(0.8, 3)
    if kind < 0.65:
        weight = polygon(points[[*JAW, *INNER_BEARD]], size, soft)
    elif kind < 0.85:
        middle, radius = points[[CHIN, 17]].mean(0), np.linalg.norm(points[CHIN] - points[17])
        angles = np.linspace(0, 2 * np.pi, 20)
        weight = polygon(middle + radius * np.column_stack([np.cos(angles) * 0.9, np.sin(angles) * 0.75]), size, soft)
    if kind > 0.5 or rng.random() < 0.8:
        weight = np.maximum(weight, polygon(points[list(MOUSTACHE)], size, soft * 0.6))
    weight *= 1 - polygon(points[list(OUTER_LIPS)], size, 0.6)
    _blend(image, texture, weight * scene.skin * strength)


def _glasses(image: np.ndarray, scene: Scene, rng: np.random.Generator) -> None:
    """Frames, lenses with tint and reflections, bridge and temples, in perspective."""
    size = scene.size
    points = scene.points3
    angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    width, height = rng.uniform(0.05, 0.068), rng.uniform(0.032, 0.058)
    power, drop = rng.uniform(2, 5), rng.uniform(-0.015, 0.025)
    cos, sin = np.cos(angles), np.sin(angles)
    scale = (np.abs(cos) ** power + np.abs(sin) ** power) ** (-1 / power)
    colour = rng.uniform(0, 0.25, 3) if rng.random() < 0.6 else rng.uniform(0, 1, 3)
    thick, strength = int(rng.integers(1, 4)), rng.uniform(0.5, 1)
    is_dark, tint = rng.random() < 0.12, rng.uniform(0, 0.4, 3)
    lenses, line = [], np.zeros((size, size), np.uint8)
    for corners, outward in zip(EYES, (-1, 1), strict=True):
        centre = points[list(corners)].mean(0) + np.array([0.006 * outward, -drop, 0.035])
        bow = 0.012 * (1 + cos * outward)
        outline = centre + np.column_stack([width * scale * cos, height * scale * sin, -bow])
        lens = scene.view.project(outline)
        lenses.append(outline)
        cover = polygon(lens, size)
        _blend(image, tint, cover * (rng.uniform(0.5, 0.97) if is_dark else rng.uniform(0, 0.15)))
        if rng.random() < 0.5:
            at = lens.mean(0) + rng.uniform(-0.05, 0.05, 2)
            streak = np.array([[-0.1, 0.02], [0.02, -0.1], [0.06, -0.1], [-0.1, 0.06]]) * rng.uniform(0.4, 1.5)
            _blend(image, np.ones(3), cover * polygon(at + streak, size, rng.uniform(0.3, 2)) * rng.uniform(0.1, 0.7))
        cv2.polylines(line, [_fixed(lens, size)], True, 255, thick, cv2.LINE_AA, _SHIFT)
        side = outline[int(np.argmax(outline[:, 0] * outward))] + np.array([0, 0.02, 0])
        temple = scene.view.project(np.stack([side, side + np.array([0.03 * outward, 0.0, -0.12])]))
        if outward * float(scene.view.rotation[0, 2]) < 0.15:
            cv2.polylines(line, [_fixed(temple, size)], False, 255, thick, cv2.LINE_AA, _SHIFT)
    inner = np.stack([lenses[0][int(np.argmax(lenses[0][:, 0]))], lenses[1][int(np.argmin(lenses[1][:, 0]))]])
    cv2.polylines(line, [_fixed(scene.view.project(inner), size)], False, 255, thick, cv2.LINE_AA, _SHIFT)
    _blend(image, colour, line.astype(np.float32) / 255 * strength)


def _strands(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> None:
    """Strands of hair over the forehead, perhaps over an eye, or down a side."""
    size = image.shape[0]
    colour = np.clip(rng.uniform(0.02, 0.75) * np.array([1, 0.85, 0.65]) + rng.normal(0, 0.03, 3), 0, 1)
    root = points[FOREHEAD] + rng.normal(0, 0.1, 2) + [0, -0.05]
    line = np.zeros((size, size), np.uint8)
    side, reach = rng.normal(0, 0.25), rng.uniform(0.05, 0.5)
    for _ in range(int(rng.integers(2, 25))):
        start = root + rng.normal(0, 0.06, 2)
        end = start + np.array([side + rng.normal(0, 0.06), reach * rng.uniform(0.5, 1.2)])
        bend = (start + end) / 2 + rng.normal(0, 0.04, 2) + [0.3 * side, -0.02]
        t = np.linspace(0, 1, 8)[:, None]
        curve = (1 - t) ** 2 * start + 2 * t * (1 - t) * bend + t**2 * end
        level, width = int(rng.integers(100, 255)), int(rng.integers(1, 3))
        cv2.polylines(line, [_fixed(curve, size)], False, level, width, cv2.LINE_AA, _SHIFT)
    _blend(image, colour, line.astype(np.float32) / 255 * rng.uniform(0.5, 1))


def _hat(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> None:
    """Cover the forehead from above some line: caps, bands, scarves."""
    size = image.shape[0]
    left, right, eyes = points[234], points[454], points[[33, 263]].mean(0)
    up = points[FOREHEAD] - eyes
    low = rng.uniform(0.45, 1.1)
    ends = [end + up * (low - 0.1) + (end - other) * 0.15 for end, other in ((left, right), (right, left))]
    line = [ends[0], eyes + up * low * rng.uniform(0.9, 1.1), ends[1]]
    outline = np.stack([*line, line[2] + 3 * up, line[0] + 3 * up])
    texture = rng.uniform(0, 1, 3) * (1 + colour_noise(rng, int(rng.integers(2, 40)), np.zeros(3), 0.15, size))
    _blend(image, texture.clip(0, 1), polygon(outline, size, rng.uniform(0.3, 1)))


def _occluder(image: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> None:
    """A hand-like bundle, a microphone, a bar or a block before the face."""
    size = image.shape[0]
    kind = rng.random()
    skin = np.array([rng.uniform(0.3, 0.95), 0.0, 0.0])
    skin[1], skin[2] = skin[0] * rng.uniform(0.68, 0.85), skin[0] * rng.uniform(0.5, 0.75)
    at = points[int(rng.integers(468))] + rng.normal(0, 0.12, 2)
    shade = 1 + colour_noise(rng, int(rng.integers(2, 12)), np.zeros(3), 0.1, size)
    if kind < 0.5:
        angle, thick = rng.uniform(0, 2 * np.pi), rng.uniform(0.03, 0.055)
        along = np.array([np.cos(angle), np.sin(angle)])
        mask = np.zeros((size, size), np.uint8)
        for finger in range(int(rng.integers(1, 5))):
            start = at + np.array([-along[1], along[0]]) * thick * 1.1 * finger + along * rng.normal(0, 0.03)
            stroke = _fixed(np.stack([start, start + along * rng.uniform(0.3, 0.9)]), size)
            cv2.polylines(mask, [stroke], False, 255 - 12 * finger, max(2, int(thick * size)), cv2.LINE_AA, _SHIFT)
        level = mask.astype(np.float32) / 255
        _blend(image, (skin * shade * (0.7 + 0.3 * level[..., None])).clip(0, 1), (level > 0.5).astype(np.float32))
        return
    colour = rng.uniform(0, 1, 3)
    if kind < 0.75:
        half = rng.uniform(0.04, 0.18, 2)
        outline = at + np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half + rng.normal(0, 0.02, (4, 2))
    else:
        angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
        outline = at + rng.uniform(0.03, 0.14) * np.column_stack([np.cos(angles), np.sin(angles)])
    _blend(image, (colour * shade).clip(0, 1), polygon(outline, size, rng.uniform(0.2, 1.5)))
