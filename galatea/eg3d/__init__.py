"""EG3D: tri-plane generators that render a latent code from any camera."""

from galatea.eg3d.generator import GeneratorConfig, Rendering, TriPlaneGenerator
from galatea.eg3d.renderer import RenderingOptions

__all__ = ["GeneratorConfig", "Rendering", "RenderingOptions", "TriPlaneGenerator"]
