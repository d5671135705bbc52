"""Architectures of generators that are small enough for tests."""

from galatea.eg3d import GeneratorConfig, RenderingOptions
from galatea.eg3d.anchored_config import AnchoredConfig

SMALL = AnchoredConfig(
    code_fields=(("age", 1), ("hair_colour", 3)),
    w_dim=16,
    texture_channels=6,
    texture_size=32,
    texture_synthesis_size=16,
    num_texture_maps=2,
    static_channels=4,
    static_size=16,
    static_synthesis_size=16,
    num_static_maps=2,
    synthesis_base=128,
    plane_size=32,
    plane_features=6,
    num_features=5,
    neural_rendering_resolution=32,
)

SMALL_PLAIN = GeneratorConfig(
    z_dim=8,
    w_dim=16,
    plane_resolution=16,
    plane_channels=4,
    channel_base=64,
    channel_max=8,
    neural_rendering_resolution=8,
    superresolution="2X",
    rendering=RenderingOptions(depth_resolution=6, depth_resolution_importance=6),
)
