"""Architecture of a tri-plane generator."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from galatea.eg3d.modulation import NoiseMode
from galatea.eg3d.ray_sampling import RenderingOptions
from galatea.eg3d.superresolution import named_spec
from galatea.eg3d.triplane import RELEASED_PLANE_AXES
from galatea.errors import ConfigError

LARGEST = {
    "z_dim": 16384,
    "w_dim": 16384,
    "num_mapping_layers": 64,
    "plane_resolution": 4096,
    "plane_channels": 4096,
    "channel_base": 1 << 20,
    "channel_max": 16384,
    "neural_rendering_resolution": 4096,
}
"""Largest sizes of a configuration: a damaged file must not ask for all memory."""


@dataclass(frozen=True)
class GeneratorConfig:
    """Architecture of a tri-plane generator; defaults are the released FFHQ 512 network.

    Attributes:
        z_dim: width of z.
        c_dim: width of the conditioning camera label.
        w_dim: width of w.
        num_mapping_layers: fully connected layers of the mapping network.
        plane_resolution: size of a plane.
        plane_channels: features of a plane.
        channel_base: channels of the plane synthesis at resolution r are `min(channel_base // r, channel_max)`.
        channel_max: see above.
        conv_clamp: clamp of activations of the plane synthesis, None for none.
        neural_rendering_resolution: size of the volume-rendered image.
        superresolution: "2X", "4X", "8X" or "8XDC".
        superresolution_noise_mode: noise of the super-resolution layers.
        superresolution_conv_clamp: clamp of activations of the super-resolution, None for none.
        is_superresolution_antialiased: low-pass where rendered features are resized down.
        is_conditioning_zero: the mapping network ignores the camera ("generator pose conditioning" off).
        conditioning_scale: the camera label is multiplied by this before the mapping network.
        decoder_lr_multiplier: equalised learning-rate multiplier of the decoder.
        plane_axes: axes of the three planes.
        rendering: sampling of rays.
    """

    z_dim: int = 512
    c_dim: int = 25
    w_dim: int = 512
    num_mapping_layers: int = 2
    plane_resolution: int = 256
    plane_channels: int = 32
    channel_base: int = 32768
    channel_max: int = 512
    conv_clamp: float | None = None
    neural_rendering_resolution: int = 128
    superresolution: str = "8XDC"
    superresolution_noise_mode: NoiseMode = "none"
    superresolution_conv_clamp: float | None = None
    is_superresolution_antialiased: bool = True
    is_conditioning_zero: bool = False
    conditioning_scale: float = 1.0
    decoder_lr_multiplier: float = 1.0
    plane_axes: tuple[tuple[tuple[float, ...], ...], ...] = RELEASED_PLANE_AXES
    rendering: RenderingOptions = field(default_factory=RenderingOptions)

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: naming the field.
        """
        for name, largest in LARGEST.items():
            if not 1 <= getattr(self, name) <= largest:
                raise ConfigError(f"{name}: expected at least 1 and at most {largest}, got {getattr(self, name)}")
        if self.plane_resolution < 4 or self.plane_resolution & (self.plane_resolution - 1):
            raise ConfigError(f"plane_resolution: expected a power of two >= 4, got {self.plane_resolution}")
        if torch.tensor(self.plane_axes).shape != (3, 3, 3):
            raise ConfigError("plane_axes: expected three 3x3 matrices")
        if self.c_dim not in (0, 25):
            raise ConfigError(f"c_dim: expected 25 (a camera label) or 0, got {self.c_dim}")
        if self.superresolution_noise_mode not in ("none", "const", "random"):
            raise ConfigError(f"superresolution_noise_mode: got {self.superresolution_noise_mode!r}")
        named_spec(self.superresolution)
