"""Super-resolution of the rendered feature image (EG3D, section 4.4 and appendix)."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.modulation import NoiseMode
from galatea.eg3d.synthesis import SynthesisBlock
from galatea.errors import ConfigError


@dataclass(frozen=True)
class SuperResolutionSpec:
    """Shape of a super-resolution module: two blocks, of which the second always doubles the resolution.

    Attributes:
        input_resolution: size that features are resized to before the first block.
        widths: channels of the two blocks.
        is_first_upsampling: the first block doubles the resolution, too.
    """

    input_resolution: int
    widths: tuple[int, int]
    is_first_upsampling: bool

    @property
    def output_resolution(self) -> int:
        """Size of the image that comes out."""
        return self.input_resolution * (4 if self.is_first_upsampling else 2)


SPECS = {
    "2X": SuperResolutionSpec(64, (128, 64), is_first_upsampling=False),
    "4X": SuperResolutionSpec(128, (128, 64), is_first_upsampling=False),
    "8X": SuperResolutionSpec(128, (128, 64), is_first_upsampling=True),
    "8XDC": SuperResolutionSpec(128, (256, 128), is_first_upsampling=True),
}
"""The modules of EG3D's released networks by the end of their names (`SuperresolutionHybrid8XDC`, ...)."""


def named_spec(name: str) -> SuperResolutionSpec:
    """Return the shape of a named module.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in SPECS:
        raise ConfigError(f"super-resolution module: expected one of {sorted(SPECS)}, got {name!r}")
    return SPECS[name]


class SuperResolution(nn.Module):
    """Turns a rendered feature image into the final image, steered by the last `w`.

    The image that comes in is never altered: where the rendering resolution equals `input_resolution`, the raw image
    stays what was rendered (in the reference's 2X and 4X modules it comes back changed).

    Args:
        spec: shape of the module.
        w_dim: width of w.
        num_features: channels that come in.
        img_channels: channels of the image (3; more where something like alpha goes along).
        is_antialiased: low-pass when features are resized down.
        conv_clamp: clamp of activations; released networks that were trained in half precision use 256.
    """

    def __init__(
        self,
        spec: SuperResolutionSpec,
        w_dim: int = 512,
        num_features: int = 32,
        img_channels: int = 3,
        *,
        is_antialiased: bool = True,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.input_resolution, self.output_resolution = spec.input_resolution, spec.output_resolution
        self.is_antialiased = is_antialiased
        first = spec.input_resolution * (2 if spec.is_first_upsampling else 1)
        self.block0 = SynthesisBlock(
            num_features,
            spec.widths[0],
            w_dim,
            first,
            img_channels,
            is_upsampling=spec.is_first_upsampling,
            conv_clamp=conv_clamp,
        )
        self.block1 = SynthesisBlock(
            spec.widths[0], spec.widths[1], w_dim, 2 * first, img_channels, conv_clamp=conv_clamp
        )

    def forward(
        self,
        image: Float[Tensor, "batch img_channels height width"],
        features: Float[Tensor, "batch num_features height width"],
        ws: Float[Tensor, "batch num_ws w_dim"],
        noise_mode: NoiseMode = "none",
    ) -> Float[Tensor, "batch img_channels size size"]:
        """Return the image at `output_resolution`.

        Args:
            image: raw image (the first features), [-1,1].
            features: rendered features, [-1,1].
            ws: `w_plus`; only the last layer's is used.
            noise_mode: per-pixel noise; none by default, so that frames of one identity do not flicker.
        """
        last = ws[:, -1:].expand(image.shape[0], 3, -1)
        features, image = self._resize(features), self._resize(image)
        features, image = self.block0(features, image, last, noise_mode)
        out: tuple[Tensor, Tensor] = self.block1(features, image, last, noise_mode)
        return out[1]

    def _resize(self, x: Tensor) -> Tensor:
        size = self.input_resolution
        if x.shape[-1] == size:
            return x
        return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=self.is_antialiased)
