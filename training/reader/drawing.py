"""Pictures of readings: the face, the landmarks on it, and the fitted head rendered again beside it."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from galatea.cameras import project
from galatea.faces.reading import FaceReading
from galatea.morphable.actions import ARKIT_ACTIONS
from galatea.morphable.fitting import HeadFit
from galatea.morphable.head import HeadModel

SIDE = 320
COLOURS = {"skin": (205, 160, 135), "eye": (235, 235, 235), "mouth": (150, 60, 60), "socket": (90, 60, 60)}
LIGHT = (0.3, 0.4, 0.86)
NUM_NAMED = 6


def with_landmarks(
    image: UInt8[np.ndarray, "s s 3"], reading: FaceReading, row: int, title: str
) -> UInt8[np.ndarray, "320 320 3"]:
    """Draw landmarks, gaze and the strongest actions over a picture."""
    canvas = cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    points = reading.points[row].numpy() * SIDE
    for number, point in enumerate(points):
        _dot(canvas, point, (60, 255, 60) if number < 468 else (60, 160, 255))
    for eye, pupil in enumerate((468, 473)):
        end = points[pupil] + 60 * reading.gaze[row, eye, :2].numpy()
        cv2.line(canvas, _pixel(points[pupil]), _pixel(end), (255, 230, 60), 1, cv2.LINE_AA)
    yaw, pitch, roll = reading.angles_deg()[row].tolist()
    _text(canvas, f"{title}  yaw {yaw:.0f} pitch {pitch:.0f} roll {roll:.0f}", 12)
    strongest = reading.expression[row].argsort(descending=True)[:NUM_NAMED].tolist()
    for line, action in enumerate(strongest):
        _text(canvas, f"{ARKIT_ACTIONS[action]} {float(reading.expression[row, action]):.2f}", 28 + 13 * line)
    return canvas


def rendered_head(model: HeadModel, fit: HeadFit, row: int) -> UInt8[np.ndarray, "320 320 3"]:
    """Render a fitted head with one light, nearer triangles over farther ones."""
    vertices = model.vertices(fit.identity[row : row + 1], fit.expression[row : row + 1])
    camera = fit.camera[row : row + 1]
    image, depth = project(vertices, camera)
    normals = model.vertex_normals(vertices)[0]
    faces = model.faces.long()
    shade = _shade(normals[faces].mean(1))
    toward = camera[0, :16].reshape(4, 4)[:3, 3]
    corners = vertices[0, faces]
    outward = torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
    is_front = (outward * (toward - corners.mean(1))).sum(-1) > 0
    base = torch.tensor([COLOURS.get(name, COLOURS["skin"]) for name in model.part_names], dtype=torch.float32)
    colours = (base[model.part] * shade[:, None]).clamp(0, 255)
    canvas = np.full((2 * SIDE, 2 * SIDE, 3), 60, np.uint8)
    order = depth[0, faces].mean(1).argsort(descending=True)
    pixels = np.round(image[0].numpy() * 2 * SIDE * 16).astype(np.int32)
    for face in order[is_front[order]].tolist():
        cv2.fillConvexPoly(canvas, pixels[faces[face].numpy()], colours[face].tolist(), cv2.LINE_AA, 4)
    return np.asarray(cv2.resize(canvas, (SIDE, SIDE), interpolation=cv2.INTER_AREA))


def _shade(normals: Float[Tensor, "f 3"]) -> Float[Tensor, "f"]:
    light = torch.tensor(LIGHT)
    return 0.35 + 0.75 * (torch.nn.functional.normalize(normals, dim=-1) @ light).clamp_min(0)


def sheet(tiles: list[np.ndarray], columns: int) -> UInt8[np.ndarray, "h w 3"]:
    """Join tiles row by row."""
    blank = np.zeros_like(tiles[0])
    tiles = tiles + [blank] * (-len(tiles) % columns)
    return np.vstack([np.hstack(tiles[start : start + columns]) for start in range(0, len(tiles), columns)])


def save(image: UInt8[np.ndarray, "h w 3"], path: str) -> None:
    """Write a JPEG."""
    cv2.imwrite(path, image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])


def _pixel(point: np.ndarray) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _dot(canvas: np.ndarray, point: np.ndarray, colour: tuple[int, int, int]) -> None:
    place = (round(float(point[0]) * 16), round(float(point[1]) * 16))
    cv2.circle(canvas, place, 14, colour, -1, cv2.LINE_AA, 4)


def _text(canvas: np.ndarray, text: str, y: int) -> None:
    for colour, width in (((0, 0, 0), 3), ((255, 255, 255), 1)):
        cv2.putText(canvas, text, (4, y), cv2.FONT_HERSHEY_SIMPLEX, 0.36, colour, width, cv2.LINE_AA)
