"""Builds the scene of an expressed head and casts it into pictures with labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import warp as wp
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from galatea.cameras import project
from galatea.morphable.correspondence import load_correspondence
from galatea.morphable.head import HeadModel
from training.heads import kernels, shading
from training.heads.assets import Assets, to_linear
from training.heads.folds import fold_values
from training.heads.geometry import GeometryBuilder, HeadGeometry
from training.heads.labels import IrisPoints, iris_points, landmark_points
from training.heads.lighting import VertexLight
from training.heads.people import HeadSample

PARTS = ("background", "skin", "eyes", "mouth", "hair", "brows", "cloth", "glasses", "object", "beard")
"""Values of the part mask. Lashes count as brows, inner mouth, teeth and tongue as mouth, stubble as skin; an object is
what is in front of the head. Of what is half transparent the part that contributes most counts."""
_PART_OF_MATERIAL = np.array([1, 2, 3, 3, 3, 1, 5, 5, 4, 6, 7, 7, 8, 9, 0], dtype=np.uint8)


@dataclass(frozen=True)
class Picture:
    """One image of a head and its labels.

    Attributes:
        rgb: sRGB, not premultiplied.
        alpha: coverage.
        part: indices into `PARTS`.
        depth: along the viewing axis in world units, 0 where nothing is (`labels.ray_distance` gives EG3D's depth).
        normal: unit normals in the camera's frame (x right, y down, z away from the camera), 0 where nothing is.
        landmarks: in image sides, in the order of `galatea.faces.landmarks`.
        is_visible: whether a ray from the camera reaches the landmark; brows and lashes hide none.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    alpha: UInt8[np.ndarray, "h w"]
    part: UInt8[np.ndarray, "h w"]
    depth: Float[np.ndarray, "h w"]
    normal: Float[np.ndarray, "h w 3"]
    landmarks: Float[np.ndarray, "478 2"]
    is_visible: Bool[np.ndarray, "478"]


class HeadRenderer:
    """Renders head samples on one device ("cpu" or "cuda"); assets and the head model are loaded once."""

    def __init__(self, model: HeadModel, assets: Assets, device: str = "cpu") -> None:
        self.model, self.assets, self.device = model, assets, device
        self._texels: Any = wp.array(assets.texels.reshape(-1), dtype=wp.uint8, device=device)
        self._linear: Any = wp.array(to_linear(np.arange(256) / 255.0).astype(np.float32), dtype=float, device=device)
        self.correspondence = load_correspondence()
        self.geometry = GeometryBuilder(model, assets, self.correspondence)
        self._irises: dict[float, IrisPoints] = {}

    def iris(self, scale: float = 1.0) -> IrisPoints:
        """Return where the irises of a size are drawn on the eyeballs."""
        if scale not in self._irises:
            self._irises[scale] = iris_points(self.model, scale)
        return self._irises[scale]

    def render(self, sample: HeadSample, size: int) -> list[Picture]:
        """Render a head from all its cameras."""
        geometry = self.geometry.build(sample)
        points: Any = wp.array(geometry.vertices, dtype=wp.vec3, device=self.device)
        indices: Any = wp.array(geometry.triangles.astype(np.int32).ravel(), dtype=wp.int32, device=self.device)
        mesh = wp.Mesh(points=points, indices=indices)
        scene = self._scene(sample, geometry)
        scene.mesh, scene.face = mesh.id, indices
        views = [View(scene, camera, size, self.device) for camera in sample.cameras]
        light = VertexLight(scene, points, geometry, sample.seed, self.device)
        light.guess(sample.cameras, size)
        _cast(views, [np.arange(size * size)] * len(views), 1, light)
        _cast(views, [np.flatnonzero(_needs_detail(*view.labels()[:2])) for view in views], 2, light)
        head = torch.from_numpy(geometry.vertices[None, : self.model.num_vertices])
        landmarks = landmark_points(self.iris(sample.extras.iris_scale), self.correspondence, head)[0]
        return [
            self._picture(view, scene, camera, landmarks) for view, camera in zip(views, sample.cameras, strict=True)
        ]

    def _scene(self, sample: HeadSample, geometry: HeadGeometry) -> shading.Scene:
        person, light, device = sample.person, sample.light, self.device
        vertices = geometry.vertices
        rest = np.zeros_like(vertices)
        rest[: self.model.num_vertices] = self.model.mean.numpy()
        copied, shell = geometry.light_from
        rest[shell] = rest[copied]
        names = [person.skin, "eye", "teeth", "tongue", "", "", person.brow, person.lash, person.hair]
        names += [""] * (shading.NUM_MATERIALS - len(names))
        scene = shading.Scene()
        scene.normal = wp.array(geometry.normals, dtype=wp.vec3, device=device)
        scene.rest = wp.array(rest, dtype=wp.vec3, device=device)
        scene.uv = wp.array(geometry.uv.reshape(-1, 2), dtype=wp.vec2, device=device)
        scene.material = wp.array(geometry.material.astype(np.int32), dtype=wp.int32, device=device)
        scene.texels, scene.linear = self._texels, self._linear
        scene.texture = wp.array([self.assets.texture[n] if n else -1 for n in names], dtype=wp.int32, device=device)
        scene.tint = wp.array(self._tints(sample).astype(np.float32), dtype=wp.vec3, device=device)
        hair = self.assets.mean_color.get(person.hair, np.ones(3))
        scene.hair_gain = float(1 / max(hair @ np.array([0.2126, 0.7152, 0.0722]), 0.004))
        scene.key_direction, scene.key_color = wp.vec3(*light.key_direction), wp.vec3(*light.key_color)
        scene.sky, scene.ground = wp.vec3(*light.sky), wp.vec3(*light.ground)
        scene.shine = person.shine
        folds = fold_values(person.creases, sample.expression)
        scene.num_folds, scene.folds = len(folds), wp.array(folds.ravel(), dtype=float, device=device)
        scene.cloth_color = wp.vec3(*to_linear(person.cloth_color))
        scene.cloth_height, scene.cloth_tilt = person.cloth_height, person.cloth_tilt
        extras = sample.extras
        scene.iris_scale = extras.iris_scale
        scene.lens_opacity = extras.glasses.lens_opacity if extras.glasses else 0.0
        scene.has_beard = int(extras.beard is not None)
        scene.beard = wp.array(geometry.beard, dtype=float, device=device)
        scene.beard_color = wp.vec3(*to_linear(extras.beard.color if extras.beard else np.zeros(3)))
        eyes = self.model.eye_centres(torch.from_numpy(vertices[None, : self.model.num_vertices]))[0].tolist()
        scene.left_eye, scene.right_eye = wp.vec3(*eyes[0]), wp.vec3(*eyes[1])
        return scene

    def _tints(self, sample: HeadSample) -> Float[np.ndarray, "14 3"]:
        """Return the colour that each material's texture is multiplied with, or its own colour."""
        person, extras = sample.person, sample.extras
        frame = extras.glasses.color if extras.glasses else np.zeros(3)
        lens = extras.glasses.lens_color if extras.glasses else np.zeros(3)
        skin = to_linear(person.skin_color)
        return np.stack(
            [
                skin / self.assets.mean_color[person.skin],
                to_linear(person.eye_color),
                np.array([1.25, 1.18, 1.02]),
                np.array([0.85, 0.7, 0.68]),
                np.array([0.2, 0.05, 0.045]),
                0.6 * skin * np.array([1.0, 0.62, 0.58]) + np.array([0.06, 0.01, 0.01]),
                to_linear(person.brow_color),
                np.array([0.008, 0.006, 0.005]),
                to_linear(person.hair_color),
                to_linear(person.cloth_color),
                to_linear(frame),
                to_linear(lens),
                to_linear(extras.occluder.color if extras.occluder else np.zeros(3)),
                to_linear(extras.beard.color if extras.beard else np.zeros(3)),
            ]
        )

    def _picture(
        self, view: View, scene: shading.Scene, camera: Float[np.ndarray, "25"], landmarks: Float[Tensor, "478 3"]
    ) -> Picture:
        material, depth, normal = view.labels()
        _fill_pinholes(material, depth, normal)
        rgba = view.rgba()
        rgb = rgba[..., :3] / np.maximum(rgba[..., 3:], 1e-4)
        return Picture(
            rgb=np.round(255 * to_display(rgb) * (rgba[..., 3:] > 0.003)).astype(np.uint8),
            alpha=np.round(255 * np.clip(rgba[..., 3], 0, 1)).astype(np.uint8),
            part=_PART_OF_MATERIAL[material],
            depth=depth,
            normal=normal,
            landmarks=project(landmarks[None], torch.from_numpy(camera)[None])[0][0].numpy(),
            is_visible=self._is_visible(scene, camera, landmarks),
        )

    def _is_visible(
        self, scene: shading.Scene, camera: Float[np.ndarray, "25"], landmarks: Float[Tensor, "478 3"]
    ) -> Bool[np.ndarray, "478"]:
        points: Any = wp.array(landmarks.numpy(), dtype=wp.vec3, device=self.device)
        free: Any = wp.zeros(len(points), dtype=float, device=self.device)
        origin = wp.vec3(*camera[:16].reshape(4, 4)[:3, 3].tolist())
        wp.launch(kernels.look, len(points), inputs=[scene, origin, points, free], device=self.device)
        return np.asarray(free.numpy() > 0.5)


class View:
    """What one camera sees of a scene, pixel by pixel."""

    def __init__(self, scene: shading.Scene, camera: Float[np.ndarray, "25"], size: int, device: str) -> None:
        self._scene, self._size, self._device = scene, size, device
        self._pose, self._focal = wp.mat44(*camera[:16].tolist()), float(camera[16])
        kinds = (wp.vec4, wp.float32, wp.int32, wp.vec3, wp.int32)
        self._arrays: list[Any] = [wp.zeros(size * size, dtype=kind, device=device) for kind in kinds]

    def cast(self, pixels: Int[np.ndarray, "n"], grid: int) -> Int[np.ndarray, "m"]:
        """Cast grid x grid rays through pixels; returns those where something was not lit yet."""
        chosen: Any = wp.array(pixels.astype(np.int32), dtype=wp.int32, device=self._device)
        inputs = [self._scene, self._pose, self._focal, self._size, grid, chosen, *self._arrays]
        wp.launch(kernels.cast, len(pixels), inputs=inputs, device=self._device)
        return np.asarray(pixels[self._arrays[4].numpy()[pixels] > 0])

    def rgba(self) -> Float[np.ndarray, "h w 4"]:
        """Return premultiplied linear colour and coverage."""
        return np.asarray(self._arrays[0].numpy().reshape(self._size, self._size, 4))

    def labels(self) -> tuple[Int[np.ndarray, "h w"], Float[np.ndarray, "h w"], Float[np.ndarray, "h w 3"]]:
        """Return copies of material (-1: nothing), depth and normal, of one ray a pixel."""
        side = self._size
        depth, material, normal = (array.numpy().copy() for array in self._arrays[1:4])
        return material.reshape(side, side), depth.reshape(side, side), normal.reshape(side, side, 3)


def _cast(views: Sequence[View], pixels: Sequence[Int[np.ndarray, "n"]], grid: int, light: VertexLight) -> None:
    """Cast pixels of all views; where that shows what is not lit yet, light it and cast again."""
    left = list(pixels)
    while any(len(chosen) for chosen in left):
        left = [view.cast(chosen, grid) for view, chosen in zip(views, left, strict=True)]
        light.extend()


def _needs_detail(material: Int[np.ndarray, "h w"], depth: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Return the pixels that one ray does not render well."""
    fine = ((material > 0) & (material < shading.HAIR)) | (material > shading.CLOTH)
    jump = np.zeros_like(fine)
    for axis in (0, 1):
        change = (np.diff(material, axis=axis) != 0) | (np.abs(np.diff(depth, axis=axis)) > 0.03)
        before, after = [slice(None)] * 2, [slice(None)] * 2
        before[axis], after[axis] = slice(0, -1), slice(1, None)
        jump[tuple(before)] |= change
        jump[tuple(after)] |= change
    return np.asarray(fine | jump)


def _fill_pinholes(
    material: Int[np.ndarray, "h w"], depth: Float[np.ndarray, "h w"], normal: Float[np.ndarray, "h w 3"]
) -> None:
    """Give single pixels whose ray slipped between two triangles the labels of their left neighbour, in place."""
    is_hit = material >= 0
    row, column = np.nonzero(~is_hit[1:-1, 1:-1] & is_hit[:-2, 1:-1] & is_hit[2:, 1:-1] & is_hit[1:-1, :-2])
    for array in (material, depth, normal):
        array[row + 1, column + 1] = array[row + 1, column]


def to_display(linear: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """Turn linear light into sRGB in [0, 1]; above 0.7 highlights are compressed instead of cut."""
    soft = np.where(linear < 0.7, linear, 0.7 + 0.3 * (1 - np.exp(-(linear - 0.7) / 0.3)))
    soft = np.clip(soft, 0, 1)
    return np.asarray(np.where(soft <= 0.0031308, 12.92 * soft, 1.055 * soft ** (1 / 2.4) - 0.055))
