"""Architecture of an anchored generator."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from galatea.eg3d.carry import VIEWS
from galatea.eg3d.guided_sampling import SurfaceSampling
from galatea.eg3d.lighting import NUM_HARMONICS
from galatea.eg3d.view_planes import Box
from galatea.errors import ConfigError
from galatea.morphable.cache import HEAD_VERSION


@dataclass(frozen=True)
class AnchoredConfig:
    """Architecture of an anchored generator.

    Attributes:
        code_fields: name and width of the fields of the semantic code z, in order.
        w_dim: width of w.
        texture_channels: channels of the neural texture; the first three are reflectance, [0,1].
        texture_size: size of the neural texture.
        texture_synthesis_size: resolution of the network that paints it.
        num_texture_maps: basis maps of the reflectance.
        static_channels: channels of each static plane.
        static_size: size of a static plane.
        static_synthesis_size: resolution of the network that paints them.
        num_static_maps: basis maps of the static planes.
        synthesis_base: width of both synthesis networks at resolution r is `synthesis_base // r`, at most 64.
        plane_size: size of the planes' features; their surface channels are twice as large.
        plane_features: features of a plane, besides the surface channels.
        num_features: rendered features besides colour.
        neural_rendering_resolution: size of the volume-rendered image.
        box: the cube that the planes cover.
        static_box: the cube that static planes cover: where hair may be.
        sampling: how rays are sampled.
        head_version: version of the head model whose identity space and atlas the weights belong to.
    """

    code_fields: tuple[tuple[str, int], ...]
    w_dim: int = 128
    texture_channels: int = 16
    texture_size: int = 256
    texture_synthesis_size: int = 64
    num_texture_maps: int = 29
    static_channels: int = 16
    static_size: int = 64
    static_synthesis_size: int = 32
    num_static_maps: int = 10
    synthesis_base: int = 2048
    plane_size: int = 128
    plane_features: int = 26
    num_features: int = 9
    neural_rendering_resolution: int = 128
    box: Box = field(default_factory=Box)
    static_box: Box = field(default_factory=lambda: Box((0.0, 0.02, 0.03), 0.42))
    sampling: SurfaceSampling = field(default_factory=SurfaceSampling)
    head_version: int = HEAD_VERSION

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: naming the field.
        """
        if not self.code_fields or any(width < 1 for _, width in self.code_fields):
            raise ConfigError(f"code_fields: expected (name, width >= 1) pairs, got {self.code_fields}")
        if self.head_version != HEAD_VERSION:
            raise ConfigError(
                f"head_version: the weights go with version {self.head_version} of the head model, this is version "
                f"{HEAD_VERSION}; use weights and code of the same release"
            )
        if self.texture_channels < 4:
            raise ConfigError(f"texture_channels: expected at least 4, got {self.texture_channels}")

    @property
    def z_dim(self) -> int:
        """Width of the semantic code."""
        return sum(width for _, width in self.code_fields)

    @property
    def code_places(self) -> Mapping[str, slice]:
        """Where each field of the semantic code lies in z."""
        places, start = {}, 0
        for name, width in self.code_fields:
            places[name] = slice(start, start + width)
            start += width
        return MappingProxyType(places)

    @property
    def residual_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Additive maps per identity: reflectance in UV space (fine, coarse), static planes, hair colour, light."""
        return MappingProxyType(
            {
                "texture": (3, self.texture_size, self.texture_size),
                "texture_coarse": (3, 16, 16),
                "static": (len(VIEWS) * self.static_channels, self.static_size, self.static_size),
                "tint": (3, self.static_size, self.static_size),
                "light": (3 * NUM_HARMONICS, 1, 1),
            }
        )
