"""The anchored generator: tri-planes painted through the expressed head mesh.

As in Next3D (Sun et al. 2023, arXiv 2211.11208), `w` paints a neural texture in the head's UV space and static planes
for hair; identity and expression move the mesh, whose orthographic casts carry the texture into the planes. Expression
is therefore exact by construction, and a photo's texture, once lifted into the UV space, moves with it. Differences:
the texture's first channels are a reflectance that is lit and shown as it is, the planes keep the mesh's depth, so that
the decoder reads signed distances, static planes are aligned to the skull, and there is no second, warped volume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from galatea.cameras import RADIUS
from galatea.eg3d.carry import VIEWS, MeshTopology, ViewCast, cast_views
from galatea.eg3d.detail import add_surface_detail, enlarge, subdivide, surface_points
from galatea.eg3d.generator import Rendering
from galatea.eg3d.lookup import read_bilinear
from galatea.eg3d.painting import HarmonicLight, MixedMaps, SemanticMapping, resample_axes
from galatea.eg3d.provenance import GeneratorFacts
from galatea.eg3d.rays import Rays, camera_rays
from galatea.eg3d.surface import (
    Box,
    SurfaceDecoder,
    SurfaceSampling,
    SurfaceTables,
    ViewPlanes,
    composite,
    guided_depths,
)
from galatea.errors import ConfigError
from galatea.morphable.cache import HEAD_VERSION
from galatea.morphable.head import HeadCoefficients, HeadModel

_GEOMETRY_CHANNELS = 5
"""Mask, depth and normal of a cast."""
_SPARSE_FROM, _SPARSE_FACTOR, _SPARSE_ALPHA, _CHUNK_RAYS = 64, 4, 0.02, 4096
"""Without gradients, images from this size on are rendered smaller by the factor first; rays near opacity follow."""
_SKULL_HEIGHT = 0.8
"""The upper part of the head (half boxes from the crown) that static planes are aligned to: it ignores the jaw."""


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
        sampling: how rays are sampled.
        head_version: version of the head model whose identity space and atlas the weights belong to.
    """

    code_fields: tuple[tuple[str, int], ...]
    w_dim: int = 128
    texture_channels: int = 16
    texture_size: int = 256
    texture_synthesis_size: int = 64
    num_texture_maps: int = 16
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


@dataclass(frozen=True)
class HeadCast:
    """Heads cast onto the planes: what `planes` needs of identity and expression; reuse it while they stay the same.

    Attributes:
        views: the casts, in the order of `VIEWS`.
        skull: centre and half extent of the skull (batch, 3, 2), half boxes, to which static planes are aligned.
    """

    views: tuple[ViewCast, ...]
    skull: Float[Tensor, "batch 3 2"]

    @property
    def batch_size(self) -> int:
        """Number of heads."""
        return self.skull.shape[0]

    def select(self, index: Int[Tensor, "n"] | slice) -> HeadCast:
        """Return some of the heads."""
        views = tuple(ViewCast(v.uv[index], v.normal[index], v.surface[index]) for v in self.views)
        return HeadCast(views, self.skull[index])


class PlaneFusion(nn.Module):
    """Turns texture, geometry and static features of one view into plane features; `w` shifts the hidden layer.

    The shift carries what holds everywhere (the colour of the hair, say), so that maps need only say where.
    """

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, hidden: int = 24) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(in_channels, hidden, 3, padding=1)
        self.shift = nn.Linear(w_dim, hidden)
        self.conv1 = nn.Conv2d(hidden, out_channels, 1)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)

    def forward(
        self, x: Float[Tensor, "batch in_channels size size"], w: Float[Tensor, "batch w_dim"]
    ) -> Float[Tensor, "batch out_channels size size"]:
        """Return features."""
        hidden = self.conv0(x) + self.shift(w)[:, :, None, None]
        out: Tensor = self.conv1(F.leaky_relu(hidden, 0.2))
        return out


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
        texture_basis = (config.num_texture_maps, 3, config.texture_size)
        self.texture = MixedMaps(
            config.w_dim,
            config.texture_channels,
            config.texture_synthesis_size,
            config.synthesis_base,
            texture_basis,
            gain=0.01,
        )
        with torch.no_grad():
            self.texture.mean.fill_(0.5)
        num_static = len(VIEWS) * config.static_channels
        static_basis = (config.num_static_maps, num_static, config.static_size)
        self.static = MixedMaps(
            config.w_dim, num_static, config.static_synthesis_size, config.synthesis_base, static_basis, gain=0.3
        )
        self.light = HarmonicLight(config.w_dim)
        self.mapping_network = SemanticMapping(config.z_dim, config.w_dim, self.num_ws)
        in_channels = config.texture_channels + _GEOMETRY_CHANNELS + config.static_channels
        self.fusion = nn.ModuleList(PlaneFusion(in_channels, config.plane_features, config.w_dim) for _ in VIEWS)
        self.decoder = SurfaceDecoder(config.plane_features, config.num_features)
        self._used_vertices = torch.unique(self.mesh.faces)
        resting = torch.zeros(1, self.mesh.num_identity, device=self.mesh.faces.device)
        self.register_buffer("template_skull", self.measure_skull(resting)[0], persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> AnchoredGenerator:
        """Move the head model along with the weights; its type stays."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        device = self.template_skull.device
        if self.mesh.faces.device != device:
            self.mesh = HeadModel(**{f.name: getattr(self.mesh, f.name).to(device) for f in fields(self.mesh)})
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
        places, start = {}, 0
        for name, width in self.config.code_fields:
            places[name] = slice(start, start + width)
            start += width
        return MappingProxyType(places)

    @property
    def residual_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Additive maps per identity: reflectance in UV space, fine and coarse, and the static planes."""
        config = self.config
        return MappingProxyType(
            {
                "texture": (3, config.texture_size, config.texture_size),
                "texture_coarse": (3, 16, 16),
                "static": (len(VIEWS) * config.static_channels, config.static_size, config.static_size),
            }
        )

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
        mesh, box = self.mesh, self.config.box
        vertices = box.enter(mesh.vertices(head.identity, head.expression).float())
        topology = MeshTopology(mesh.faces.to(vertices.device), mesh.uv.to(vertices.device).float())
        sizes = [2 * self.config.plane_size] * len(VIEWS)
        return HeadCast(cast_views(vertices, topology, sizes), self.measure_skull(head.identity))

    def measure_skull(self, identity: Float[Tensor, "batch num_identity"]) -> Float[Tensor, "batch 3 2"]:
        """Return centre and half extent (half boxes) of the upper head along each axis, at rest."""
        neutral = self.mesh.vertices(identity, identity.new_zeros(identity.shape[0], 52)).float()
        neutral = self.config.box.enter(neutral[:, self._used_vertices.to(neutral.device)])
        is_skull = (neutral[..., 1] > neutral[..., 1].amax(1, keepdim=True) - _SKULL_HEIGHT)[..., None]
        low = torch.where(is_skull, neutral, torch.full_like(neutral, 9.0)).amin(1)
        high = torch.where(is_skull, neutral, torch.full_like(neutral, -9.0)).amax(1)
        bottom = high[:, 1] - 1.2 * (high[:, 0] - low[:, 0])
        low = torch.stack([low[:, 0], bottom, low[:, 2]], 1)
        return torch.stack([(low + high) / 2, (high - low) / 2], dim=-1)

    def paint(
        self, ws: Float[Tensor, "batch num_ws w_dim"], residuals: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return reflectance (batch, 3, size, size), the texture's other channels, and the static planes of all views.

        Raises:
            ValueError: if a residual is unknown.
        """
        residuals = residuals or {}
        unknown = set(residuals) - set(self.residual_shapes)
        if unknown:
            raise ValueError(f"residuals: expected some of {sorted(self.residual_shapes)}, got {sorted(unknown)}")
        num_texture = self.texture.num_ws
        reflectance, texture = self.texture(ws[:, :num_texture])
        static, _ = self.static(ws[:, num_texture:-1])
        if "static" in residuals:
            static = static + residuals["static"]
        return _add_reflectance(reflectance, residuals), texture, static

    def view_planes(
        self, painted: tuple[Tensor, Tensor, Tensor], cast: HeadCast, w: Float[Tensor, "batch w_dim"]
    ) -> ViewPlanes:
        """Return the planes of every view from what `paint` made and the last of `w_plus`; `planes` packs them."""
        reflectance, texture, static = painted
        views = [
            self._view_plane(index, (reflectance, texture, part), cast, w)
            for index, part in enumerate(static.chunk(len(VIEWS), dim=1))
        ]
        return ViewPlanes(*(torch.stack(maps, dim=1) for maps in zip(*views, strict=True)))

    def _view_plane(
        self, index: int, painted: tuple[Tensor, Tensor, Tensor], cast: HeadCast, w: Tensor
    ) -> tuple[Float[Tensor, "batch size2 size2 6"], Float[Tensor, "batch size size channels"]]:
        """Return one view's surface channels and features."""
        seen = cast.views[index]
        reflectance, texture, static = painted
        colour = sample_texture(reflectance, seen) * self.light(w, seen.normal)
        surface = torch.cat([colour, seen.surface], dim=-1)
        coarse = ViewCast(*(maps[:, ::2, ::2] for maps in (seen.uv, seen.normal, seen.surface)))
        by_texel = [sample_texture(texture, coarse), surface[:, ::2, ::2, :5], coarse.normal]
        aligned = self._align(static, cast.skull, index, coarse.mask.shape[-1])
        inputs = torch.cat([maps.permute(0, 3, 1, 2) for maps in by_texel] + [aligned.float()], dim=1)
        features = self.fusion[index](inputs.contiguous(memory_format=torch.channels_last), w)
        return surface, features.float().permute(0, 2, 3, 1)

    def _align(self, static: Tensor, skull: Float[Tensor, "batch 3 2"], index: int, size: int) -> Tensor:
        """Move a static plane from the template's skull to each head's, and enlarge it to the plane."""
        view = VIEWS[index]
        places = (torch.arange(size, device=skull.device, dtype=skull.dtype) + 0.5) * (2 / size) - 1
        rows, columns = (
            self.template_skull[axis, 0]
            + (places - skull[:, axis, :1]) * (self.template_skull[axis, 1] / skull[:, axis, 1:])
            for axis in (view.row_axis, view.column_axis)
        )
        return resample_axes(static, rows, columns)

    def planes(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        head: HeadCoefficients | HeadCast | None = None,
        residuals: Mapping[str, Tensor] | None = None,
    ) -> Float[Tensor, "batch views channels size size"]:
        """Return the planes seen from the front, +x, -x and above, packed into one tensor (`ViewPlanes.pack`).

        Args:
            ws: `w_plus`.
            head: identity and expression, or their cast (`cast`), of batch 1 or as many as `ws`; None: the mean head
                at rest.
            residuals: additive maps by name (`residual_shapes`), with a leading batch axis of 1 or as many as `ws`.

        Raises:
            ValueError: if batches do not go together or a residual is unknown.
        """
        cast = self._matching_cast(head, ws)
        return self.view_planes(self.paint(ws, residuals), cast, ws[:, -1]).pack()

    def _matching_cast(self, head: HeadCoefficients | HeadCast | None, ws: Tensor) -> HeadCast:
        if head is None:
            head = HeadCoefficients(ws.new_zeros(1, self.mesh.num_identity), ws.new_zeros(1, 52))
        cast = head if isinstance(head, HeadCast) else self.cast(head)
        if cast.batch_size == 1 and ws.shape[0] > 1:
            return cast.select(torch.zeros(ws.shape[0], dtype=torch.long, device=ws.device))
        if cast.batch_size != ws.shape[0]:
            raise ValueError(f"head: expected a batch of 1 or {ws.shape[0]} (as ws), got {cast.batch_size}")
        return cast

    def render_rays(
        self,
        tables: SurfaceTables,
        rays: Rays,
        generator: torch.Generator | None = None,
        sampling: SurfaceSampling | None = None,
    ) -> tuple[Float[Tensor, "batch rays channels"], Float[Tensor, "batch rays 1"], Float[Tensor, "batch rays 1"]]:
        """Return colour [0,1] and features times opacity, alpha and depth along rays (as many heads as ray batches)."""
        box = self.config.box
        depths, ends = guided_depths(tables, rays, box, sampling or self.config.sampling, generator)
        points = rays.origins[..., None, :] + depths[..., None] * rays.directions[..., None, :]
        values, density = self.decoder(tables, box.enter(points).flatten(1, 2))
        values = values.view(*depths.shape, -1)
        return composite(values, density.view(depths.shape) / box.half, depths, ends)

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
        if torch.is_grad_enabled() or size < _SPARSE_FROM:
            rendered = self.render_rays(tables, given, generator)
        else:
            rendered = self._render_seen(tables, given, size, generator)
        maps = [v.transpose(1, 2).reshape(batch, -1, size, size) for v in rendered]
        fine = enlarge(torch.cat([maps[0][:, :3], maps[1]], 1), self.img_resolution)
        if size >= self.neural_rendering_resolution:
            fine_rays = camera_rays(c, self.img_resolution) if rays is None else subdivide(rays, self.img_resolution)
            points = self.config.box.enter(surface_points(fine_rays, maps[2], self.img_resolution))
            fine = add_surface_detail(fine, tables, points, size)
        image = unpremultiply(fine[:, :3], fine[:, 3:])
        raw = unpremultiply(maps[0][:, :3], maps[1])
        return Rendering(image, raw, maps[2], maps[1], image_alpha=fine[:, 3:].clamp(0, 1), features=maps[0])

    def _render_seen(
        self, tables: SurfaceTables, rays: Rays, size: int, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Render only rays near which a small rendering shows something, in chunks that fit the processor's cache."""
        batch, coarse = rays.origins.shape[0], size // _SPARSE_FACTOR
        grid = torch.arange(size * size, device=rays.origins.device).view(size, size)
        first = _SPARSE_FACTOR // 2
        sparse = grid[first::_SPARSE_FACTOR, first::_SPARSE_FACTOR][:coarse, :coarse].flatten()
        _, alpha, _ = self.render_rays(tables, _choose(rays, sparse))
        is_seen = F.max_pool2d(alpha.amax(0).view(1, 1, coarse, coarse), 3, 1, 1) > _SPARSE_ALPHA
        is_seen = F.interpolate(is_seen.float(), (size, size), mode="nearest")
        chosen = is_seen.flatten().nonzero()[:, 0]
        step = max(1, _CHUNK_RAYS // batch)
        parts = [self.render_rays(tables, _choose(rays, part), generator) for part in torch.split(chosen, step)]
        shape = (batch, size * size)
        outs = [rays.origins.new_zeros(*shape, width) for width in (3 + self.config.num_features, 1, 1)]
        outs[2] += RADIUS + self.config.box.half
        for out, found in zip(outs, zip(*parts, strict=True), strict=False):
            out[:, chosen] = torch.cat(found, 1)
        return outs[0], outs[1], outs[2]

    def synthesis(
        self,
        ws: Float[Tensor, "batch num_ws w_dim"],
        c: Float[Tensor, "batch 25"],
        head: HeadCoefficients | HeadCast | None = None,
        residuals: Mapping[str, Tensor] | None = None,
    ) -> Rendering:
        """Return the view of `w_plus` from camera `c` (`planes`, then `render`)."""
        return self.render(self.planes(ws, head, residuals), c, ws)


def _choose(rays: Rays, index: Int[Tensor, "n"]) -> Rays:
    return Rays(rays.origins[:, index], rays.directions[:, index])


def unpremultiply(colour: Float[Tensor, "batch 3 h w"], alpha: Float[Tensor, "batch 1 h w"]) -> Tensor:
    """Return colours in [-1,1] from colours [0,1] times opacity; black where there is nothing."""
    return (colour / alpha.clamp_min(0.02)).clamp(-0.1, 1.1) * 2 - 1


def _add_reflectance(reflectance: Tensor, residuals: Mapping[str, Tensor]) -> Tensor:
    """Add the residuals of the reflectance, fine and coarse."""
    if "texture" in residuals:
        reflectance = reflectance + residuals["texture"]
    if "texture_coarse" in residuals:
        size = reflectance.shape[-2:]
        coarse = F.interpolate(residuals["texture_coarse"], size, mode="bilinear", align_corners=False)
        reflectance = reflectance + coarse
    return reflectance


def sample_texture(
    texture: Float[Tensor, "batch channels height width"], seen: ViewCast
) -> Float[Tensor, "batch rows columns channels"]:
    """Read a texture (first row at v = 1) where a cast sees the mesh; zero elsewhere."""
    batch, channels, height, width = texture.shape
    rows, columns = seen.uv.shape[1:3]
    where = seen.mask.flatten().nonzero()[:, 0]
    u, v = seen.uv.flatten(0, 2)[where].unbind(-1)
    table = texture.float().permute(0, 2, 3, 1).reshape(-1, channels)
    start = where // (rows * columns) * (height * width)
    read = read_bilinear(table, (u * width - 0.5, (1 - v) * height - 0.5), (height, width), start)
    maps = read.new_zeros(batch * rows * columns, channels).index_copy(0, where, read)
    return maps.view(batch, rows, columns, channels)
