"""The networks that paint the maps of an anchored head, sized by its configuration."""

from __future__ import annotations

import torch

from galatea.eg3d.anchored_config import AnchoredConfig
from galatea.eg3d.carry import VIEWS
from galatea.eg3d.painting import MixedMaps


def texture_maps(config: AnchoredConfig) -> MixedMaps:
    """Return what paints the neural texture; its reflectance starts as grey."""
    basis = (config.num_texture_maps, 3, config.texture_size)
    texture = MixedMaps(
        config.w_dim, config.texture_channels, config.texture_synthesis_size, config.synthesis_base, basis, gain=0.01
    )
    with torch.no_grad():
        texture.mean.fill_(0.5)
    return texture


def static_maps(config: AnchoredConfig) -> MixedMaps:
    """Return what paints the static planes of all views."""
    channels = len(VIEWS) * config.static_channels
    basis = (config.num_static_maps, channels, config.static_size)
    return MixedMaps(config.w_dim, channels, config.static_synthesis_size, config.synthesis_base, basis, gain=0.3)
