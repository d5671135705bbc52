"""EG3D: tri-plane generators that render a latent code from any camera.

`from galatea.eg3d import TriPlaneGenerator, load_generator` is all that a notebook needs; meshes are in
`galatea.eg3d.geometry`, the import of official checkpoints in `galatea.eg3d.pickle_import`.
"""

from galatea.eg3d.checkpoint import load_generator
from galatea.eg3d.generator import Rendering, TriPlaneGenerator
from galatea.eg3d.generator_config import GeneratorConfig
from galatea.eg3d.ray_sampling import RenderingOptions

__all__ = ["GeneratorConfig", "Rendering", "RenderingOptions", "TriPlaneGenerator", "load_generator"]
