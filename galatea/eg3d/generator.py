"""The tri-plane generator: latent code and camera to image, depth and opacity (Chan et al. 2022, arXiv 2112.07945)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.checks import check_batch, check_finite_input, check_shape
from galatea.eg3d.generator_config import GeneratorConfig
from galatea.eg3d.mapping import MappingNetwork
from galatea.eg3d.modulation import NoiseMode
from galatea.eg3d.provenance import GeneratorFacts
from galatea.eg3d.ray_sampling import RenderingOptions
from galatea.eg3d.rays import Rays, camera_rays, validate_label
from galatea.eg3d.renderer import VolumeRenderer
from galatea.eg3d.superresolution import SuperResolution, named_spec
from galatea.eg3d.synthesis import SynthesisNetwork
from galatea.eg3d.triplane import DecodedPoints, OSGDecoder

if TYPE_CHECKING:
    from galatea.morphable.head import HeadCoefficients

NO_RESIDUALS: Mapping[str, tuple[int, ...]] = MappingProxyType({})


@dataclass(frozen=True)
class Rendering:
    """A rendered view.

    A plain generator composites its colours onto black (white with `white_back`): (image_raw + 1) / 2 is the sum of
    weight times colour. An anchored generator's colours are not premultiplied: they are the head's own, to be put on
    any background with `image_alpha`.

    Attributes:
        image: final image, (batch, 3, S, S), about [-1,1].
        image_raw: volume-rendered image, (batch, 3, R, R), [-1,1].
        depth: expected distance along the ray, normalised by opacity, (batch, 1, R, R), world units; finite.
        alpha: opacity, (batch, 1, R, R), 0..1.
        image_alpha: opacity at the size of `image` where the generator makes one, else None.
        features: all rendered features, (batch, channels, R, R), of which `image_raw` is the first three.
        image_depth: depth at the size of `image` where the generator draws outlines at that size, else None.
    """

    image: Float[Tensor, "batch 3 size size"]
    image_raw: Float[Tensor, "batch 3 resolution resolution"]
    depth: Float[Tensor, "batch 1 resolution resolution"]
    alpha: Float[Tensor, "batch 1 resolution resolution"]
    image_alpha: Float[Tensor, "batch 1 size size"] | None = None
    features: Float[Tensor, "batch channels resolution resolution"] | None = None
    image_depth: Float[Tensor, "batch 1 size size"] | None = None


class PlaneBackbone(nn.Module):
    """Mapping network and plane synthesis under the names of EG3D's checkpoints."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.synthesis = SynthesisNetwork(
            config.w_dim,
            config.plane_resolution,
            3 * config.plane_channels,
            config.channel_base,
            config.channel_max,
            config.conv_clamp,
        )
        self.mapping = MappingNetwork(
            config.z_dim, config.c_dim, config.w_dim, self.synthesis.num_ws, config.num_mapping_layers
        )


class TriPlaneGenerator(nn.Module):
    """EG3D's generator. `config` says its shape; weights come from `galatea.eg3d.checkpoint`.

    The state dict has the names of EG3D's own checkpoints.
    """

    is_anchored: ClassVar[bool] = False
    config_class: ClassVar[type] = GeneratorConfig
    dataset_label_std: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.facts = GeneratorFacts(name="unsaved", kind="plain")
        self.z_dim, self.c_dim, self.w_dim = config.z_dim, config.c_dim, config.w_dim
        self.backbone = PlaneBackbone(config)
        self.decoder = OSGDecoder(config.plane_channels, 32, config.decoder_lr_multiplier)
        self.superresolution = SuperResolution(
            named_spec(config.superresolution),
            config.w_dim,
            num_features=32,
            is_antialiased=config.is_superresolution_antialiased,
            conv_clamp=config.superresolution_conv_clamp,
        )
        self.renderer = VolumeRenderer(torch.tensor(config.plane_axes))
        # Spread of the training cameras: part of EG3D's checkpoints, not used to generate.
        self.register_buffer("dataset_label_std", torch.zeros(config.c_dim))

    @property
    def num_ws(self) -> int:
        """Number of layers that read a `w` of their own."""
        return self.backbone.synthesis.num_ws

    @property
    def w_avg(self) -> Float[Tensor, "w_dim"]:
        """Mean w over random latents."""
        return self.backbone.mapping.w_avg

    @property
    def img_resolution(self) -> int:
        """Size of the final image."""
        return self.superresolution.output_resolution

    @property
    def neural_rendering_resolution(self) -> int:
        """Size of the volume-rendered image unless asked otherwise."""
        return self.config.neural_rendering_resolution

    @property
    def residual_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Additive maps per identity: none for a plain generator."""
        return NO_RESIDUALS

    def describe(self) -> GeneratorFacts:
        """Return provenance and licence of the weights."""
        return self.facts

    @property
    def sha256(self) -> str:
        """Hash of the weight file; empty for weights that were never saved."""
        return self.facts.sha256

    def mapping(
        self,
        z: Float[Tensor, "batch z_dim"],
        c: Float[Tensor, "batch 25"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Return `w_plus` of latent codes, conditioned on camera `c` (see `MappingNetwork.forward`).

        Raises:
            InputError: if there is NaN or infinity.
            ValueError: if shapes or batches do not fit the network.
        """
        check_shape("z", z, ("batch", self.z_dim), "draw it with torch.randn")
        check_finite_input("z", z)
        conditions = None
        if self.c_dim > 0:
            check_shape("c", c, ("batch", self.c_dim), "a camera label comes from galatea.cameras.orbit or pack_label")
            check_finite_input("c", c)
            check_batch("c", c.shape[0], z.shape[0], "z")
            scale = 0.0 if self.config.is_conditioning_zero else self.config.conditioning_scale
            conditions = (c * scale).expand(z.shape[0], -1)
        ws: Tensor = self.backbone.mapping(z, conditions, truncation_psi, truncation_cutoff)
        return ws

    def planes(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        head: HeadCoefficients | None = None,
        residuals: Mapping[str, Tensor] | None = None,
        noise_mode: NoiseMode = "const",
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "batch 3 channels height width"]:
        """Return tri-planes.

        Args:
            ws: `w_plus`.
            head: has no influence on a plain generator; it is accepted so that callers need not tell the kinds apart.
            residuals: must be empty for a plain generator (see `residual_shapes`).
            noise_mode: per-pixel noise of the synthesis.
            generator: randomness for "random" noise.

        Raises:
            InputError: if `ws` has NaN or infinity.
            ValueError: if there are residuals, or `ws` has another shape.
        """
        if residuals:
            raise ValueError(f"residuals: a plain generator has none, got {sorted(residuals)}")
        self._check_codes(ws)
        flat: Tensor = self.backbone.synthesis(ws, noise_mode, generator)
        return flat.reshape(flat.shape[0], 3, self.config.plane_channels, *flat.shape[2:])

    def render(
        self,
        planes: Float[Tensor, "planes_batch 3 channels height width"],
        c: Float[Tensor, "batch 25"],
        ws: Float[Tensor, "ws_batch num_ws w_dim"],
        resolution: int | None = None,
        generator: torch.Generator | None = None,
        options: RenderingOptions | None = None,
        rays: Rays | None = None,
    ) -> Rendering:
        """Render tri-planes from cameras.

        Args:
            planes: tri-planes; a batch of 1 is seen by every camera.
            c: camera labels.
            ws: `w_plus` for the super-resolution, batch of 1 or one per camera.
            resolution: size of the volume-rendered image; None: the network's own.
            generator: None samples rays deterministically; a generator jitters samples as in training.
            options: sampling of rays; None: the network's own.
            rays: explicit rays instead of those of `c`, resolution x resolution of them, row by row.

        Raises:
            InputError: if a camera is not usable, or there is NaN or infinity.
            ValueError: if shapes or batches do not go together.
        """
        check_shape("c", c, ("batch", 25), "a camera label comes from galatea.cameras.orbit or pack_label")
        validate_label(c)
        self._check_codes(ws)
        check_batch("ws", ws.shape[0], c.shape[0], "cameras")
        self._check_planes(planes)
        check_batch("planes", planes.shape[0], c.shape[0], "cameras")
        size = self.neural_rendering_resolution if resolution is None else resolution
        rays = camera_rays(c, size) if rays is None else rays
        rendered = self.renderer(planes, self.decoder, rays, options or self.config.rendering, generator)
        features, depth, alpha = (
            values.transpose(1, 2).reshape(c.shape[0], -1, size, size)
            for values in (rendered.features, rendered.depth, rendered.alpha)
        )
        image_raw = features[:, :3]
        image = self.superresolution(image_raw, features, ws, self.config.superresolution_noise_mode)
        return Rendering(image, image_raw, depth, alpha, features=features)

    def _check_codes(self, ws: Tensor) -> None:
        check_shape("ws", ws, ("batch", self.num_ws, self.w_dim), "`mapping` makes it; repeat a single w per layer")
        check_finite_input("ws", ws)

    def _check_planes(self, planes: Tensor) -> None:
        size = self.config.plane_resolution
        check_shape(
            "planes", planes, ("batch", 3, self.config.plane_channels, size, size), "`planes` makes them from ws"
        )
        check_finite_input("planes", planes)

    def synthesis(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        c: Float[Tensor, "batch 25"],
        head: HeadCoefficients | None = None,
        residuals: Mapping[str, Tensor] | None = None,
    ) -> Rendering:
        """Return the view of `w_plus` from camera `c` (`planes`, then `render`)."""
        return self.render(self.planes(ws, head, residuals), c, ws)

    def query(
        self, planes: Float[Tensor, "planes_batch 3 channels height width"], points: Float[Tensor, "batch n 3"]
    ) -> DecodedPoints:
        """Return colour features and raw density at world points, for example to extract the surface.

        Raises:
            InputError: if there is NaN or infinity.
            ValueError: if shapes or batches do not go together.
        """
        self._check_planes(planes)
        check_shape("points", points, ("batch", "n", 3), "world coordinates")
        check_finite_input("points", points)
        check_batch("planes", planes.shape[0], points.shape[0], "points")
        return self.renderer.query(
            planes, self.decoder, points, torch.zeros_like(points), self.config.rendering.box_warp
        )

    def forward(
        self,
        z: Float[Tensor, "batch z_dim"],
        c: Float[Tensor, "batch 25"],
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Rendering:
        """Map and render with the same camera."""
        return self.synthesis(self.mapping(z, c, truncation_psi, truncation_cutoff), c)
