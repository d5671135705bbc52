"""What a photo would look like with other expressions, in its own view: targets for generators without a head.

As Lin et al. 2022 (arXiv 2203.13441) make theirs: the fitted head model is textured with the photo's own
pixels and drawn again with another expression; shape, camera and light stay. Theirs is FLAME, with eyes that are held;
ours is Galatea's head model with all 52 actions. Beyond the face, inside the mouth, and where the photo did not see the
skin, nothing is known.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from galatea.cameras import project, unpack_label
from galatea.eg3d.posing import Pose
from galatea.eg3d.seen_surface import see_surface
from galatea.morphable.face_area import face_vertices
from galatea.morphable.head import HeadCoefficients, HeadModel

_REACH = 0.03
"""The face, in world units around landmarks: wide enough to have no holes on cheeks and forehead."""
_LEAST_FACING = 0.15
"""Cosine to the view below which the photo's skin is too oblique to be a texture."""


@dataclass(frozen=True)
class ExpressionTargets:
    """Pictures of the photo's view with other expressions.

    Attributes:
        image: [-1, 1]; the photo itself where nothing is known.
        known: 1 where the face was drawn.
    """

    image: Float[Tensor, "frames 3 size size"]
    known: Float[Tensor, "frames 1 size size"]


@dataclass(frozen=True)
class PhotoFace:
    """A photo's face as a textured head model.

    Attributes:
        photo: the portrait crop, [-1, 1].
        camera: its camera.
        model: the head model.
        head: as it was fitted to the photo.
    """

    photo: Float[Tensor, "1 3 size size"]
    camera: Float[Tensor, "1 25"]
    model: HeadModel
    head: HeadCoefficients

    def vertices(self, expression: Float[Tensor, "frames 52"]) -> Float[Tensor, "frames v 3"]:
        """Return the person's vertices with other expressions."""
        return self.model.vertices(self.head.identity.expand(len(expression), -1), expression)

    def targets(self, expression: Float[Tensor, "frames 52"]) -> ExpressionTargets:
        """Return the photo with other expressions, in its own view."""
        own = self.vertices(self.head.expression)
        image, _ = project(own, self.camera)
        eye = unpack_label(self.camera)[0][:, None, :3, 3]
        facing = (self.model.vertex_normals(own) * F.normalize(eye - own, dim=-1)).sum(-1, keepdim=True)
        is_texture = self.face_flags() * (facing > _LEAST_FACING)
        values = torch.cat([image, is_texture.to(own.dtype)], -1).expand(len(expression), -1, -1)
        pose = Pose.of_photo(self.camera.expand(len(expression), 25))
        seen = see_surface(self.vertices(expression), self.model.faces, values, pose, self.photo.shape[-1])
        known = seen.is_hit * (seen.values[:, 2:] > 0.99)
        places = seen.values[:, :2].permute(0, 2, 3, 1) * 2 - 1
        drawn = F.grid_sample(self.photo.expand(len(expression), -1, -1, -1), places, align_corners=False)
        return ExpressionTargets(drawn * known + self.photo * (1 - known), known)

    def seen_face(
        self, expression: Float[Tensor, "frames 52"], pose: Pose, size: int
    ) -> Float[Tensor, "frames 1 size size"]:
        """Return 1 where posed views show the face, with its mouth and eyes, feathered to 0 at its rim."""
        inner = self.model.part != self.model.part_names.index("skin")
        flags = self.face_flags().index_fill(0, torch.unique(self.model.faces[inner]), 1.0)
        values = flags.expand(len(expression), -1, -1)
        seen = see_surface(self.vertices(expression), self.model.faces, values, pose, size)
        mask = (seen.is_hit * seen.values > 0.5).to(flags.dtype)
        # Shrunk by what is then feathered, so that nothing beyond the face is touched.
        radius = max(1, size // 40)
        shrunk = -F.max_pool2d(-mask, 2 * radius + 1, 1, radius)
        return F.avg_pool2d(shrunk, 2 * radius + 1, 1, radius, count_include_pad=False)

    def face_flags(self) -> Float[Tensor, "v 1"]:
        """Return 1 at the vertices of the face."""
        flags = self.photo.new_zeros(self.model.num_vertices, 1)
        return flags.index_fill(0, face_vertices(self.model, _REACH).to(flags.device), 1.0)
