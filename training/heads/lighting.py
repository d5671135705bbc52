"""Light at the vertices of a scene: gathered only where some camera sees it, smoothed along the surface.

Which vertices are seen is guessed with few rays; the ray caster then says where the guess fell short, and the light
there is gathered before those pixels are cast again. So the pictures are those of light gathered everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import warp as wp
from jaxtyping import Bool, Float, Int

from training.heads import kernels
from training.heads.geometry import HeadGeometry
from training.heads.shading import Scene

NUM_SMOOTHINGS = 2
GUESS_STRIDE = 3
"""Pixels between the rays that guess which vertices are seen."""


class VertexLight:
    """The light of one scene; writes `scene.light` and `scene.is_lit`."""

    def __init__(self, scene: Scene, points: Any, geometry: HeadGeometry, seed: int, device: str) -> None:
        self._scene, self._points, self._geometry, self._seed, self._device = scene, points, geometry, seed, device
        count = len(geometry.vertices)
        self._owners: Any = wp.array(geometry.vertex_material.astype(np.int32), dtype=wp.int32, device=device)
        self._raw: Any = wp.zeros(count, dtype=wp.vec3, device=device)
        self._is_gathered = np.zeros(count, dtype=bool)
        self._edges = geometry.triangles[:, [[0, 1], [1, 2], [2, 0]]].transpose(1, 0, 2).reshape(-1, 2).astype(np.int32)
        for name in ("light", "is_seen", "is_lit"):
            kind = wp.vec3 if name == "light" else wp.int32
            setattr(scene, name, wp.zeros(count, dtype=kind, device=device))

    def guess(self, cameras: Float[np.ndarray, "n 25"], size: int) -> None:
        """Light what a coarse look from the cameras finds, and what is next to it."""
        side = max(16, size // GUESS_STRIDE)
        for camera in cameras:
            inputs = [self._scene, wp.mat44(*camera[:16].tolist()), float(camera[16]), side]
            wp.launch(kernels.find_seen, side * side, inputs=inputs, device=self._device)
        self._light(self._wider(self._scene.is_seen.numpy() > 0))

    def extend(self) -> bool:
        """Light what the ray caster has seen unlit since; returns whether there was anything."""
        is_seen, is_lit = (array.numpy() > 0 for array in (self._scene.is_seen, self._scene.is_lit))
        if not (is_seen & ~is_lit).any():
            return False
        self._light(is_seen | is_lit)
        return True

    def _light(self, wanted: Bool[np.ndarray, "v"]) -> None:
        """Gather what the smoothed light of the wanted vertices depends on, and smooth it."""
        copied, shell = self._geometry.light_from
        wanted = wanted.copy()
        wanted[copied] |= wanted[shell]
        needed = wanted
        for _ in range(NUM_SMOOTHINGS):
            needed = self._wider(needed)
        fresh = np.flatnonzero(needed & ~self._is_gathered).astype(np.int32)
        inputs = [self._scene, self._points, self._owners, self._seed, wp.array(fresh, dtype=wp.int32)]
        wp.launch(kernels.gather_light, len(fresh), inputs=[*inputs, self._raw], device=self._device)
        self._is_gathered |= needed
        light = self._smoothed(needed)
        light[shell] = light[copied]
        self._scene.light.assign(light)
        self._scene.is_lit.assign(wanted.astype(np.int32))

    def _wider(self, mask: Bool[np.ndarray, "v"]) -> Bool[np.ndarray, "v"]:
        """Return the vertices of all triangles that touch the mask, and the mask."""
        triangles, wider = self._geometry.triangles, mask.copy()
        wider[triangles[mask[triangles].any(1)]] = True
        return wider

    def _smoothed(self, needed: Bool[np.ndarray, "v"]) -> Float[np.ndarray, "v 3"]:
        """Average each vertex with its neighbours, `NUM_SMOOTHINGS` times; right where all neighbours are needed."""
        light = self._raw.numpy().copy()
        chosen: Int[np.ndarray, "e 2"] = self._edges[needed[self._edges].all(1)]
        count = 1 + np.bincount(chosen.ravel(), minlength=len(light)).astype(np.float32)[:, None]
        # On the CPU, where a kernel adds in the order of the edges: sums do not depend on the machine.
        ends: list[Any] = [wp.array(np.ascontiguousarray(side), dtype=wp.int32, device="cpu") for side in chosen.T]
        for _ in range(NUM_SMOOTHINGS):
            values: Any = wp.array(light, dtype=wp.vec3, device="cpu")
            total: Any = wp.array(light, dtype=wp.vec3, device="cpu", copy=True)
            for source, target in (ends[::-1], ends):
                wp.launch(kernels.add_along, len(chosen), inputs=[source, target, values, total], device="cpu")
            light = total.numpy() / count
        return np.asarray(light)
