"""Meshes of what heads wear and of what is in front of them, modelled here: glasses, hands, cups, bars."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from training.heads import shading
from training.heads.extras import CUPS, HANDS, Glasses, Occluder

LENS_SEGMENTS = 28
TUBE_SIDES = 6
TILT = 0.12
"""How much glasses lean forward at their top."""


@dataclass(frozen=True)
class Piece:
    """A mesh of one material."""

    vertices: Float[np.ndarray, "v 3"]
    triangles: Int[np.ndarray, "f 3"]
    material: int


@dataclass(frozen=True)
class FacePlaces:
    """Where things hang on a head at rest.

    Attributes:
        eyes: middles of the left (+x) and the right eyeball.
        bridge: the nose between the eyes.
        mouth: middle of the lips.
        front: how far forward (z) the face reaches around the eyes.
        half_width: of the head at the temples, in front of the ears.
    """

    eyes: Float[np.ndarray, "2 3"]
    bridge: Float[np.ndarray, "3"]
    mouth: Float[np.ndarray, "3"]
    front: float
    half_width: float


def glasses_pieces(glasses: Glasses, places: FacePlaces) -> list[Piece]:
    """Return two rims with lenses, a bridge and two temples, seated on the nose."""
    frame, lenses, rims = [], [], []
    depth = max(places.front + 0.006, float(places.bridge[2]) + 0.002)
    for side, eye in ((1.0, places.eyes[0]), (-1.0, places.eyes[1])):
        gap = max(abs(eye[0]), glasses.half_width + 0.016)
        centre = np.array([side * gap, eye[1] - glasses.drop, depth])
        outline = _outline(glasses)
        # Leaning forward at the top, curved round the face towards the temples.
        recede = TILT * outline[:, 1] - 0.12 * (side * outline[:, 0] + glasses.half_width)
        rim = centre + np.stack([outline[:, 0], outline[:, 1], recede], -1)
        rims.append(rim)
        frame.append(_tube(rim, glasses.thickness, is_closed=True))
        lenses.append(_fan(rim, centre + np.array([0.0, 0.0, 0.004])))
    left, right = rims
    inner = [left[left[:, 0].argmin()], right[right[:, 0].argmax()]]
    middle = (inner[0] + inner[1]) / 2 + np.array([0.0, 0.012, 0.006])
    frame.append(_tube(_curve(inner[0], middle, inner[1]), glasses.thickness, is_closed=False))
    for side, rim in ((1.0, left), (-1.0, right)):
        outer = rim[(side * rim[:, 0]).argmax()] + np.array([0.0, 0.3 * glasses.half_height, 0.0])
        width = max(places.half_width, abs(outer[0]) - 0.004)
        hinge = np.array([side * (abs(outer[0]) + 0.003), outer[1], outer[2] - 0.01])
        ear = np.array([side * (width + 0.004), outer[1] - 0.005, 0.0])
        frame.append(_tube(np.stack([outer, hinge, ear]), 0.9 * glasses.thickness, is_closed=False))
    return [_joined(frame, shading.FRAME), _joined(lenses, shading.LENS)]


def occluder_pieces(occluder: Occluder, places: FacePlaces) -> list[Piece]:
    """Return an occluder in front of the face."""
    if occluder.kind == HANDS:
        meshes = _hand()
    elif occluder.kind == CUPS:
        meshes = [_cup()]
    else:
        meshes = [_tube(np.array([[-1.2, 0.0, 0.0], [1.2, 0.0, 0.0]]), 0.018, is_closed=False)]
    angle = np.radians(occluder.roll_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1.0]])
    piece = _joined(meshes, shading.OBJECT)
    placed = occluder.size * piece.vertices @ turn.T + places.mouth + occluder.offset
    return [Piece(placed, piece.triangles, piece.material)]


def _outline(glasses: Glasses) -> Float[np.ndarray, "n 2"]:
    """Return a superellipse, a little higher towards the temples."""
    angle = np.linspace(0, 2 * np.pi, LENS_SEGMENTS, endpoint=False)
    cos, sin = np.cos(angle), np.sin(angle)
    power = 2 / glasses.roundness
    x = glasses.half_width * np.sign(cos) * np.abs(cos) ** power
    y = glasses.half_height * np.sign(sin) * np.abs(sin) ** power
    return np.stack([x, y], -1)


def _curve(start: np.ndarray, middle: np.ndarray, end: np.ndarray) -> Float[np.ndarray, "n 3"]:
    """Return a quadratic arc that passes near `middle`."""
    t = np.linspace(0, 1, 7)[:, None]
    return np.asarray((1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end)


def _tube(path: Float[np.ndarray, "n 3"], radius: float, *, is_closed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return a tube of constant radius along a path; open ones are pointed at their ends."""
    along = np.roll(path, -1, 0) - np.roll(path, 1, 0)
    if not is_closed:
        along[0], along[-1] = path[1] - path[0], path[-1] - path[-2]
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    other = np.where(np.abs(along[:, 2:]) < 0.9, [[0.0, 0.0, 1.0]], [[0.0, 1.0, 0.0]])
    right = np.cross(along, other)
    right /= np.linalg.norm(right, axis=-1, keepdims=True)
    up = np.cross(right, along)
    angle = np.linspace(0, 2 * np.pi, TUBE_SIDES, endpoint=False)[:, None, None]
    rings = path + radius * (np.cos(angle) * right + np.sin(angle) * up)
    vertices = rings.transpose(1, 0, 2).reshape(-1, 3)
    count = len(path)
    first = np.arange(count if is_closed else count - 1)
    side = np.arange(TUBE_SIDES)
    a = (first[:, None] * TUBE_SIDES + side).ravel()
    b = (first[:, None] * TUBE_SIDES + (side + 1) % TUBE_SIDES).ravel()
    step = np.repeat(((first + 1) % count - first) * TUBE_SIDES, TUBE_SIDES)
    c, d = a + step, b + step
    return vertices, np.concatenate([np.stack([a, b, c], -1), np.stack([b, d, c], -1)])


def _fan(rim: Float[np.ndarray, "n 3"], centre: Float[np.ndarray, "3"]) -> tuple[np.ndarray, np.ndarray]:
    count = len(rim)
    index = np.arange(count)
    triangles = np.stack([np.full(count, count), index, (index + 1) % count], -1)
    return np.concatenate([rim, centre[None]]), triangles


def _revolved(radius: np.ndarray, height: np.ndarray, sides: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a surface of revolution about y."""
    angle = np.linspace(0, 2 * np.pi, sides, endpoint=False)
    vertices = np.stack(
        [radius[:, None] * np.sin(angle), np.repeat(height[:, None], sides, 1), radius[:, None] * np.cos(angle)], -1
    ).reshape(-1, 3)
    row, side = np.meshgrid(np.arange(len(radius) - 1), np.arange(sides), indexing="ij")
    a, b = (row * sides + side).ravel(), (row * sides + (side + 1) % sides).ravel()
    return vertices, np.concatenate([np.stack([a, b, a + sides], -1), np.stack([b, b + sides, a + sides], -1)])


def _cup() -> tuple[np.ndarray, np.ndarray]:
    """Return a mug seen from outside, its rim at the origin."""
    radius = np.array([0.0, 0.085, 0.1, 0.105, 0.108, 0.1])
    height = np.array([-0.24, -0.24, -0.2, -0.1, 0.0, 0.0])
    return _revolved(radius, height, 20)


def _capsule(start: np.ndarray, end: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Return a finger-like solid of revolution between two points."""
    length = float(np.linalg.norm(end - start))
    bend = np.sin(np.linspace(0, np.pi / 2, 4))
    outline = np.concatenate([radius * bend, radius * bend[::-1]])
    height = np.concatenate([-radius * (1 - bend), length + radius * (1 - bend[::-1])])
    vertices, triangles = _revolved(outline, height, 10)
    up = (end - start) / length
    right = np.cross(up, [0.0, 0.0, 1.0])
    right /= max(float(np.linalg.norm(right)), 1e-9)
    return vertices @ np.stack([right, up, np.cross(right, up)]) + start, triangles


def _hand() -> list[tuple[np.ndarray, np.ndarray]]:
    """Return a flat hand, fingertips up, palm towards the face; the middle finger's root is the origin."""
    meshes = []
    for x, length, lean in ((-0.054, 0.15, -0.012), (-0.018, 0.18, -0.003), (0.018, 0.17, 0.004), (0.052, 0.13, 0.014)):
        root, tip = np.array([x, -0.03, 0.0]), np.array([x + lean, length, -0.012])
        meshes.append(_capsule(root, tip, 0.0195))
    meshes.append(_capsule(np.array([-0.05, -0.13, 0.0]), np.array([-0.115, -0.015, -0.01]), 0.022))
    ball, triangles = _revolved(np.sin(np.linspace(0, np.pi, 9)), -np.cos(np.linspace(0, np.pi, 9)), 16)
    meshes.append((ball * np.array([0.078, 0.115, 0.028]) + np.array([0.0, -0.085, 0.0]), triangles))
    meshes.append(_capsule(np.array([0.0, -0.2, 0.0]), np.array([0.0, -0.6, 0.0]), 0.055))
    return meshes


def _joined(meshes: list[tuple[np.ndarray, np.ndarray]], material: int) -> Piece:
    starts = np.cumsum([0, *(len(vertices) for vertices, _ in meshes[:-1])])
    vertices = np.concatenate([vertices for vertices, _ in meshes])
    triangles = np.concatenate([triangles + start for (_, triangles), start in zip(meshes, starts, strict=True)])
    return Piece(vertices.astype(np.float32), triangles, material)
