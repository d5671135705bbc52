"""Galatea brings still portraits to life: 3D GAN inversion, animation and editing of faces, as a library."""

__version__ = "0.1.0"
