"""The anchored generator: tri-planes painted through the expressed head mesh.

As in Next3D (Sun et al. 2023, arXiv 2211.11208), `w` paints a neural texture in the head's UV space and static planes
for hair; identity and expression move the mesh, whose orthographic casts carry the texture into the planes. Expression
is therefore exact by construction, and a photo's texture, once lifted into the UV space, moves with it. Differences:
the texture's first channels are a reflectance that is lit and shown as it is, the planes keep the mesh's depth, so that
the decoder reads signed distances, static planes are aligned to the skull, and there is no second, warped volume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from galatea.eg3d.anchored_config import AnchoredConfig
from galatea.eg3d.carry import VIEWS
from galatea.eg3d.clothes import Clothes
from galatea.eg3d.detail import subdivide
from galatea.eg3d.finishing import RenderedMaps, enlarged, finished
from galatea.eg3d.fusion import Boxes, Painted, PlaneFusion, align_static, sample_texture
from galatea.eg3d.generator import Rendering
from galatea.eg3d.head_cast import HeadCast, HeadCaster
from galatea.eg3d.lighting import HarmonicLight, harmonic_shading
from galatea.eg3d.painters import static_maps, texture_maps
from galatea.eg3d.painting import HairTint, SemanticMapping
from galatea.eg3d.provenance import GeneratorFacts
from galatea.eg3d.ray_casting import RayCaster
from galatea.eg3d.rays import Rays, camera_rays
from galatea.eg3d.surface_decoder import NUM_PAINTED, SurfaceDecoder
from galatea.eg3d.view_planes import SurfaceTables, ViewPlanes
from galatea.morphable.head import HeadCoefficients, HeadModel

_SPARSE_FROM = 64
"""Without gradients, images from this size on are rendered only where there is something to see."""


class AnchoredGenerator(nn.Module):
    """A 3D portrait generator whose planes are anchored on a head mesh.

    Args:
        config: architecture.
        mesh: the head model, on CPU; None loads Galatea's own. It is not part of the state dict.
    """

    is_anchored: ClassVar[bool] = True
    config_class: ClassVar[type] = AnchoredConfig
    c_dim = 25
    template_skull: Tensor

    def __init__(self, config: AnchoredConfig, mesh: HeadModel | None = None) -> None:
        super().__init__()
        self.config = config
        self.facts = GeneratorFacts(name="unsaved", kind="anchored")
        self.mesh = HeadModel.load("cpu") if mesh is None else mesh
        self.texture, self.static = texture_maps(config), static_maps(config)
        self.light = HarmonicLight(config.w_dim, config.texture_synthesis_size)
        self.clothes = Clothes(config.w_dim, self.mesh, config.texture_size)
        self.mapping_network = SemanticMapping(config.z_dim, config.w_dim, self.num_ws)
        painted = config.texture_channels + config.static_channels
        features = config.plane_features + NUM_PAINTED - 3  # the mean colour of hair comes from `tint`
        self.fusion = nn.ModuleList(PlaneFusion(painted, features, config.w_dim) for _ in VIEWS)
        self.tint = HairTint(config.w_dim)
        self.decoder = SurfaceDecoder(config.plane_features, config.num_features)
        self.caster = HeadCaster(self.mesh, config.box)
        resting = torch.zeros(1, self.mesh.num_identity, device=self.mesh.faces.device)
        self.register_buffer("template_skull", self.caster.measure_skull(resting)[0], persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnchoredGenerator:
        """Move the head model along with the weights; its type stays."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self.template_skull.device
        if self.mesh.faces.device != device:
            self.mesh = HeadModel(**{f.name: getattr(self.mesh, f.name).to(device) for f in fields(self.mesh)})
            self.caster = HeadCaster(self.mesh, self.config.box)
        return self

    def describe(self) -> GeneratorFacts:
        """Return provenance and licence of the weights."""
        return self.facts

    @property
    def sha256(self) -> str:
        """Hash of the weight file; empty for weights that were never saved."""
        return self.facts.sha256

    @property
    def z_dim(self) -> int:
        """Width of the semantic code."""
        return self.config.z_dim

    @property
    def w_dim(self) -> int:
        """Width of w."""
        return self.config.w_dim

    @property
    def num_ws(self) -> int:
        """Layers that read a w: those of the texture, of the static planes, then the light."""
        return self.texture.num_ws + self.static.num_ws + 1

    @property
    def w_avg(self) -> Float[Tensor, "w_dim"]:
        """Mean w over the training codes."""
        return self.mapping_network.w_avg

    @property
    def code_statistics(self) -> tuple[Float[Tensor, "z_dim"], Float[Tensor, "z_dim"]]:
        """Mean and standard deviation of the training codes: where to start, and how far a step in a field goes."""
        return self.mapping_network.code_mean, self.mapping_network.code_std

    @property
    def typical_codes(self) -> Float[Tensor, "n z_dim"]:
        """Codes of some of the training people."""
        return self.mapping_network.typical_codes

    @property
    def neural_rendering_resolution(self) -> int:
        """Size of the volume-rendered image unless asked otherwise."""
        return self.config.neural_rendering_resolution

    @property
    def img_resolution(self) -> int:
        """Size of the final image."""
        return 2 * self.config.neural_rendering_resolution

    @property
    def code_fields(self) -> Mapping[str, slice]:
        """Where each field of the semantic code lies in z."""
        return self.config.code_places

    @property
    def residual_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Additive maps per identity: reflectance in UV space, fine and coarse, static planes, hair, and light."""
        return self.config.residual_shapes

    def mapping(
        self,
        z: Float[Tensor, "batch z_dim"],
        c: Float[Tensor, "batch 25"] | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Return `w_plus` of semantic codes; the camera `c` has no influence.

        Raises:
            ValueError: if z has another width than the code.
        """
        if z.ndim != 2 or z.shape[1] != self.z_dim:
            raise ValueError(f"z: expected shape (batch, {self.z_dim}), got {tuple(z.shape)}")
        ws: Tensor = self.mapping_network(z)
        if truncation_psi == 1.0:
            return ws
        cutoff = self.num_ws if truncation_cutoff is None else truncation_cutoff
        return torch.cat([self.w_avg.lerp(ws[:, :cutoff], truncation_psi), ws[:, cutoff:]], dim=1)

    def use_plane_size(self, size: int) -> None:
        """Cast and paint planes of another size from now on (training starts with small ones); no weight changes."""
        self.config = replace(self.config, plane_size=size)

    def cast(self, head: HeadCoefficients) -> HeadCast:
        """Cast heads onto the planes; differentiable in the coefficients (through depth and normals)."""
        return self.caster.cast(head, self.config.plane_size)

    def paint(self, ws: Float[Tensor, "batch num_ws w_dim"], residuals: Mapping[str, Tensor] | None = None) -> Painted:
        """Return what `w_plus` paints, with residual maps added.

        Raises:
            ValueError: if a residual is unknown.
        """
        residuals = residuals or {}
        unknown = set(residuals) - set(self.residual_shapes)
        if unknown:
            raise ValueError(f"residuals: expected some of {sorted(self.residual_shapes)}, got {sorted(unknown)}")
        num_texture = self.texture.num_ws
        bare, texture = self.texture(ws[:, :num_texture])
        reflectance = self.clothes(ws[:, -1], bare)
        static, _ = self.static(ws[:, num_texture:-1])
        no_tint = static.new_zeros(len(ws), 3, *static.shape[2:])
        return Painted(reflectance, texture, static, self.light(ws[:, -1]), no_tint).add(residuals)

    def tint_hair(
        self, ws: Float[Tensor, "batch num_ws w_dim"], change: Float[Tensor, "batch 3"]
    ) -> Float[Tensor, "batch num_ws w_dim"]:
        """Return `w_plus` with the hair's colour in white light changed by so much (sRGB, 0..1); the light stays."""
        kept = (self.light.read, self.light.lamps, self.clothes.read)
        last = ws[:, -1] + self.tint.shift(ws[:, -1], kept, change)
        return torch.cat([ws[:, :-1], last[:, None]], dim=1)

    def view_planes(self, painted: Painted, cast: HeadCast, w: Float[Tensor, "batch w_dim"]) -> ViewPlanes:
        """Return the planes of every view from what `paint` made and the last of `w_plus`; `planes` packs them."""
        shadow = self.light.shadow(painted.light)
        size = painted.reflectance.shape[-2:]
        lit = torch.cat([painted.reflectance, F.interpolate(shadow, size, mode="bilinear", align_corners=False)], dim=1)
        boxes = Boxes(self.config.box, self.config.static_box, self.template_skull)
        surfaces, features = [], []
        for index, static in enumerate(painted.static.chunk(len(VIEWS), dim=1)):
            seen = cast.views[index]
            reflectance, shadow = torch.split(sample_texture(lit, seen), 3, dim=-1)
            colour = reflectance * (harmonic_shading(painted.light, seen.normal) + shadow) * (1 - seen.shade)
            surface = torch.cat([colour, seen.surface], dim=-1)
            aligned = align_static(static, boxes, cast.skull, index, (seen.mask.shape[-1] + 1) // 2)
            surfaces.append(torch.cat([surface, seen.mouth[..., None]], dim=-1))
            features.append(self.fusion[index](surface, seen, (painted.texture, aligned), w))
        # Only the mesh is inside mouths: what is painted over it, hair above all, would grey them.
        is_outside = (cast.views[0].shade[:, ::2, ::2] == 0).all(-1, keepdim=True)
        on_mesh, over_mesh = features[0].tensor_split([self.config.plane_features], dim=-1)
        features[0] = torch.cat([on_mesh, over_mesh * is_outside], dim=-1)
        changes = F.interpolate(painted.tint, features[0].shape[1:3], mode="bilinear", align_corners=False)
        tint = self.tint(w, painted.light, cast.skull, changes.permute(0, 2, 3, 1)) * is_outside
        mean_colour = F.pad(tint[:, None], (0, 0, 0, 0, 0, 0, 0, len(VIEWS) - 1))  # it is read from the front
        return ViewPlanes(torch.stack(surfaces, dim=1), torch.cat([torch.stack(features, dim=1), mean_colour], dim=-1))

    def planes(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        head: HeadCoefficients | HeadCast | None = None,
        residuals: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch views channels size size"]:
        """Return the planes seen from the front, +x, -x and above, packed into one tensor (`ViewPlanes.pack`).

        Args:
            ws: `w_plus`; one of batch 1 is painted once for all heads.
            head: identity and expression, or their cast (`cast`), of batch 1 or as many as `ws` unless that is one;
                None: the mean head at rest.
            residuals: additive maps by name (`residual_shapes`), with a leading batch axis of 1 or as many as `ws`.

        Raises:
            ValueError: if batches do not go together or a residual is unknown.
        """
        cast = self._matching_cast(head, ws)
        painted, w = self.paint(ws, residuals), ws[:, -1]
        if ws.shape[0] == 1:
            painted = Painted(*(maps.expand(cast.batch_size, -1, -1, -1) for maps in painted))
        return self.view_planes(painted, cast, w.expand(cast.batch_size, -1)).pack()

    def _matching_cast(self, head: HeadCoefficients | HeadCast | None, ws: Tensor) -> HeadCast:
        if head is None:
            head = HeadCoefficients(ws.new_zeros(1, self.mesh.num_identity), ws.new_zeros(1, 52))
        cast = head if isinstance(head, HeadCast) else self.cast(head)
        if cast.batch_size == 1 and ws.shape[0] > 1:
            return cast.select(torch.zeros(ws.shape[0], dtype=torch.long, device=ws.device))
        if ws.shape[0] not in (1, cast.batch_size):
            raise ValueError(f"head: expected a batch of 1 or {ws.shape[0]} (as ws), got {cast.batch_size}")
        return cast

    def ray_caster(self, tables: SurfaceTables) -> RayCaster:
        """Return what renders planes, laid out as tables, along rays."""
        return RayCaster(tables, self.decoder, self.config.box, self.config.static_box, self.config.sampling)

    def render(
        self,
        planes: Float[Tensor, "planes_batch views channels size size"],
        c: Float[Tensor, "batch 25"],
        ws: Float[Tensor, "ws_batch num_ws w_dim"],
        resolution: int | None = None,
        generator: torch.Generator | None = None,
        rays: Rays | None = None,
    ) -> Rendering:
        """Render planes from cameras.

        Colours are not premultiplied: where alpha is 0 they are black. All of it is differentiable, also in `c`.
        The image is the rendered one, enlarged, with the surface's own detail added where `resolution` is at least
        `neural_rendering_resolution` (smaller ones are for optimisation, where it would cost more than the rest).

        Args:
            planes: from `planes`; a batch of 1 is seen by every camera.
            c: camera labels.
            ws: has no influence here (the light is in the planes); accepted as for every generator.
            resolution: size of the volume-rendered image.
            generator: jitters samples along rays.
            rays: explicit rays instead of those of `c`, resolution x resolution of them, row by row.
        """
        size = self.neural_rendering_resolution if resolution is None else resolution
        given = camera_rays(c, size) if rays is None else rays
        batch = given.origins.shape[0]
        if planes.shape[0] not in (1, batch):
            raise ValueError(f"planes: expected a batch of 1 or {batch} (as cameras), got {planes.shape[0]}")
        tables = SurfaceTables.of(ViewPlanes.unpack(planes))
        caster = self.ray_caster(tables)
        if torch.is_grad_enabled() or size < _SPARSE_FROM:
            rendered = caster.render(given, generator)
        else:
            rendered = caster.render_seen(given, size, generator)
        maps = RenderedMaps(*(v.transpose(1, 2).reshape(batch, -1, size, size) for v in rendered))
        final = self.img_resolution
        if size < self.neural_rendering_resolution:
            return enlarged(maps, final)
        return finished(maps, caster, camera_rays(c, final) if rays is None else subdivide(rays, final), final)

    def synthesis(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        c: Float[Tensor, "batch 25"],
        head: HeadCoefficients | HeadCast | None = None,
        residuals: Mapping[str, Tensor] | None = None,
    ) -> Rendering:
        """Return the view of `w_plus` from camera `c` (`planes`, then `render`)."""
        return self.render(self.planes(ws, head, residuals), c, ws)
