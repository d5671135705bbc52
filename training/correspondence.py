"""Makes `galatea/data/facemesh_correspondence.safetensors`: where FaceMesh's points lie on the head model.

Heads of known shape, expression and camera are rendered and read by FaceMesh, each also mirrored, so that the result
has no side. For every landmark, over all pictures:

1. *place*: the point of the skin whose projections lie closest to the landmark (near-frontal views); lower-lip
   landmarks are only looked for below the mouth, because FaceMesh opens a mouth by half, so that they would land on
   the upper lip;
2. *offset*: a constant shift in head space that explains what is left over all views. FaceMesh exaggerates depth,
   which a fit without it shows as a head turned too far;
3. *gain* of each facial action: the share of its movement that FaceMesh reports (least squares, pulled towards 1);
4. *spread*: the robust standard deviation of what is left.

Run `python -m training.correspondence ASSETS --out FILE`; ASSETS is the folder of MakeHuman's system assets.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from torch import Tensor

from galatea.cameras import FOCAL, project, unpack_label, view_angles
from galatea.faces.packs import open_pack
from galatea.images import to_tensor
from galatea.morphable.actions import ARKIT_ACTIONS
from galatea.morphable.correspondence import NUM_MESH_POINTS, RESOURCE
from galatea.morphable.fitting import observed_points
from galatea.morphable.head import HeadModel
from training.heads.assets import load_assets
from training.heads.people import sample_head
from training.heads.renderer import HeadRenderer

FIRST_SEED = 700_000
"""Far from the seeds of training data."""
SIZE, BATCH, NUM_VIEWS = 256, 16, 2
MAX_YAW_DEG, FRONTAL_DEG = 45.0, 15.0
LOWER_LIP = (146, 91, 181, 84, 17, 314, 405, 321, 375, 95, 88, 178, 87, 14, 317, 402, 318, 324, 77, 90, 180, 85, 16,
             315, 404, 320, 307, 96, 89, 179, 86, 15, 316, 403, 319, 325)  # fmt: skip
"""FaceMesh's landmarks on the lower lip, without the corners."""
SAMPLES = ((1 / 3, 1 / 3, 1 / 3), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.6, 0.2, 0.2), (0.2, 0.6, 0.2),
           (0.2, 0.2, 0.6), (0.5, 0.5, 0.0), (0.0, 0.5, 0.5), (0.5, 0.0, 0.5))  # fmt: skip
"""Points of a triangle that are tried as places."""
GAIN_PRIOR, MIN_GAIN, MAX_GAIN = 0.02, 0.3, 1.25
"""Weight of the pull towards a gain of 1 (share of the largest action's evidence), and bounds: where FaceMesh reports
next to nothing, dividing by it would turn its noise into expression."""
ROBUST_CUT = 2.5
"""Errors beyond as many standard deviations lose influence."""
PLACE_SCALE = 0.04
"""The same when places are chosen, in inter-pupil distances."""
MIN_SPREAD = 0.008
MAX_FRONTAL, NUM_FINE = 160, 8
"""Pictures that places are chosen by, and triangles that are looked at closely."""
LIP_REACH = 0.04
"""How far the lower lip reaches below its inner rim (EG3D units)."""
_Render = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Picture, identity, expression, camera."""
_PointsOf = Callable[[Tensor, Tensor], Tensor]
"""Identity and expression -> landmark places in world space."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """What is known about the rendered pictures, each with its mirror image behind it."""

    identity: Float[Tensor, "n k"]
    expression: Float[Tensor, "n 52"]
    camera: Float[Tensor, "n 25"]
    observed: Float[Tensor, "n points 2"]

    def select(self, rows: Tensor) -> Pictures:
        """Return some of them."""
        return Pictures(self.identity[rows], self.expression[rows], self.camera[rows], self.observed[rows])


def look(model: HeadModel, assets: Path, seeds: range, num_expressions: int, device: str) -> Pictures:
    """Render heads and read them with FaceMesh."""
    pack = open_pack("open")
    labels: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    seen: list[Tensor] = []
    for batch in _batches(_renders(model, assets, seeds, num_expressions, device)):
        images = np.stack([image for image, _, _, _ in batch])
        both = to_tensor(np.concatenate([images, images[:, :, ::-1]]))
        with torch.no_grad():
            landmarks = pack.landmarks(both)
        points = observed_points(landmarks.points)
        confidence = landmarks.confidence.view(2, -1).amin(0)
        for index, (_, identity, expression, camera) in enumerate(batch):
            if confidence[index] > 0.5:
                labels.append((identity, expression, camera))
                seen.append(torch.stack([points[index], points[index + len(batch)]]))
        logger.info("%d pictures read", len(seen))
    columns = zip(*labels, strict=True)
    shapes, actions, cameras = (torch.from_numpy(np.stack(column)) for column in columns)
    observed = torch.stack(seen)
    flipped = _mirror_camera(cameras)
    return Pictures(
        torch.cat([shapes, shapes * model.identity_mirror]),
        torch.cat([actions, actions[:, model.action_mirror]]),
        torch.cat([cameras, flipped]),
        torch.cat([observed[:, 0], observed[:, 1]]),
    )


def _renders(model: HeadModel, assets: Path, seeds: range, num_expressions: int, device: str) -> Iterator[_Render]:
    """Yield picture, identity, expression and camera; no view beyond 45 degrees, no hair over the eyes."""
    loaded = load_assets(assets, model.base_index.numpy())
    renderer = HeadRenderer(model, loaded, device)
    for seed in seeds:
        for number in range(num_expressions):
            sample = sample_head(seed, number, NUM_VIEWS, model, loaded)
            hair = sample.person.hair if sample.person.hair.startswith("short") else ""
            is_near = (view_angles(torch.from_numpy(sample.cameras)).yaw_deg.abs() <= MAX_YAW_DEG).numpy()
            sample = replace(sample, person=replace(sample.person, hair=hair), cameras=sample.cameras[is_near])
            shade = np.random.default_rng(sample.seed).uniform(40, 220, 3)
            for picture, camera in zip(renderer.render(sample, SIZE), sample.cameras, strict=True):
                alpha = picture.alpha[..., None] / 255.0
                image = (picture.rgb * alpha + shade * (1 - alpha)).round().astype(np.uint8)
                yield image, sample.person.identity, sample.expression, camera


def _batches(items: Iterator[_Render]) -> Iterator[list[_Render]]:
    batch: list[_Render] = []
    for item in items:
        batch.append(item)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def _mirror_camera(label: Float[Tensor, "n 25"]) -> Float[Tensor, "n 25"]:
    """Return the cameras that see the mirrored world as the mirrored picture."""
    flip = torch.tensor([-1.0, 1.0, 1.0, 1.0])
    cam2world = label[:, :16].reshape(-1, 4, 4) * flip[:, None] * flip[None]
    return torch.cat([cam2world.flatten(1), label[:, 16:]], dim=1)


def calibrate(model: HeadModel, pictures: Pictures) -> dict[str, Tensor]:
    """Return the tensors of the correspondence."""
    pupils = pupil_vertices(model)
    eyes = model.mean[pupils]
    distance = float((eyes[1] - eyes[0]).norm())
    ruler = FOCAL * distance / project(eyes.expand(len(pictures.camera), 2, 3), pictures.camera)[1].mean(1)
    vertex, barycentric = _place(model, pictures, ruler)
    vertex = torch.cat([vertex, pupils[:, None].expand(2, 3)])
    barycentric = torch.cat([barycentric, torch.tensor([[1.0, 0.0, 0.0]]).expand(2, 3)])

    def points(identity: Tensor, expression: Tensor) -> Tensor:
        return (model.vertices(identity, expression)[:, vertex] * barycentric[..., None]).sum(2)

    gain, offset = torch.ones(52), torch.zeros(len(vertex), 3)
    for _ in range(3):
        shape = points(pictures.identity, pictures.expression * gain)
        offset = _offset(pictures, shape, ruler) / distance
        gain = _gain(pictures, points, offset * distance, ruler, model.action_mirror)
    shape = points(pictures.identity, pictures.expression * gain) + offset * distance
    error = (pictures.observed - project(shape, pictures.camera)[0]) / ruler[:, None, None]
    spread = (1.4826 * error.abs().median(0).values).square().mean(-1).sqrt().clamp_min(MIN_SPREAD)
    return {"vertex": vertex.int(), "barycentric": barycentric, "offset": offset, "spread": spread, "gain": gain}


def pupil_vertices(model: HeadModel) -> Int[Tensor, "2"]:
    """Return the foremost vertex of the right (-x) and of the left eyeball."""
    eyes = torch.unique(model.faces[model.part == model.part_names.index("eye")])
    foremost = []
    for side in (-1.0, 1.0):
        chosen = eyes[model.mean[eyes, 0] * side > 0]
        foremost.append(chosen[model.mean[chosen, 2].argmax()])
    return torch.stack(foremost)


def _place(model: HeadModel, pictures: Pictures, ruler: Tensor) -> tuple[Int[Tensor, "468 3"], Float[Tensor, "468 3"]]:
    """Return the surface points whose projections are closest to the landmarks in near-frontal views.

    First among the middles of all triangles, then among points on the best few.
    """
    angles = view_angles(pictures.camera)
    frontal = (angles.yaw_deg.abs() < FRONTAL_DEG) & (angles.pitch_deg.abs() < FRONTAL_DEG)
    rows = torch.nonzero(frontal)[:, 0]
    rows = rows[:: max(1, len(rows) // MAX_FRONTAL)]
    chosen, ruler = pictures.select(rows), ruler[rows]
    vertices = model.vertices(chosen.identity, chosen.expression)
    faces = _front_faces(model)

    def cost(faces: Tensor, weights: Tensor) -> Tensor:
        """Return the robust cost of candidates (landmarks or 1, candidates, 3)."""
        total = torch.zeros(NUM_MESH_POINTS, faces.shape[1])
        for row in range(len(vertices)):
            places = (vertices[row, faces] * weights[..., None]).sum(2)
            image = project(places.flatten(0, 1)[None], chosen.camera[row : row + 1])[0].reshape(*places.shape[:2], 2)
            squared = (image - chosen.observed[row, :NUM_MESH_POINTS, None]).square().sum(-1)
            total += squared / (squared + (PLACE_SCALE * ruler[row]).square())
        return total

    coarse = cost(faces[None], torch.full((1, len(faces), 3), 1 / 3))
    coarse[list(LOWER_LIP)] += torch.where(_on_lower_lip(model, faces), 0.0, torch.inf)
    best = faces[coarse.topk(NUM_FINE, largest=False).indices]
    weights = torch.tensor(SAMPLES).repeat(NUM_FINE, 1).expand(NUM_MESH_POINTS, -1, 3)
    fine_faces = best.repeat_interleave(len(SAMPLES), 1)
    winner = cost(fine_faces, weights).argmin(1)
    landmark = torch.arange(NUM_MESH_POINTS)
    return fine_faces[landmark, winner], weights[landmark, winner]


def _on_lower_lip(model: HeadModel, faces: Int[Tensor, "f 3"]) -> Bool[Tensor, "f"]:
    """Return which triangles move with the jaw, around the mouth."""
    jaw = model.action_basis[ARKIT_ACTIONS.index("jawOpen")].norm(dim=-1)
    height = model.mean[faces][..., 1].mean(1)
    is_lower: Tensor = (jaw[faces].amin(1) > 0.5 * jaw.max()) & (
        height > model.mean[model.mouth_ring, 1].min() - LIP_REACH
    )
    return is_lower


def _front_faces(model: HeadModel) -> Int[Tensor, "f 3"]:
    """Return the triangles of the skin of the front of the head that face forward."""
    corners = model.mean[model.faces]
    normal = torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=-1)
    is_forward = torch.nn.functional.normalize(normal, dim=-1)[:, 2] > -0.1
    is_front = (corners[..., 2].amin(1) > -0.05) & (corners[..., 1].amin(1) > -0.32)
    return model.faces[(model.part == model.part_names.index("skin")) & is_forward & is_front].long()


def _offset(pictures: Pictures, shape: Tensor, ruler: Tensor) -> Float[Tensor, "points 3"]:
    """Return the constant shift of each point in head space (world units) that explains its errors best."""
    image, depth = project(shape, pictures.camera)
    cam2world, _ = unpack_label(pictures.camera)
    rotation = cam2world[:, :3, :3].transpose(1, 2)
    centred = (image - 0.5)[..., None] * rotation[:, None, 2:3]
    jacobian = (FOCAL * rotation[:, None, :2] - centred) / depth[..., None, None] / ruler[:, None, None, None]
    error = (pictures.observed - image) / ruler[:, None, None]
    shift = torch.zeros(shape.shape[1], 3)
    for _ in range(5):
        left = error - (jacobian @ shift[:, :, None])[..., 0]
        scale = 1.4826 * left.norm(dim=-1).median(0).values.clamp_min(1e-4)
        weight = 1 / (1 + (left.norm(dim=-1) / (ROBUST_CUT * scale)).square())
        normal = torch.einsum("npik,np,npil->pkl", jacobian, weight, jacobian)
        right = torch.einsum("npik,np,npi->pk", jacobian, weight, error)
        ridge = 0.02 * normal.diagonal(dim1=1, dim2=2).mean(1)
        shift = torch.linalg.solve(normal + ridge[:, None, None] * torch.eye(3), right[..., None])[..., 0]
    return shift


def _gain(pictures: Pictures, points: _PointsOf, offset: Tensor, ruler: Tensor, mirror: Tensor) -> Float[Tensor, "52"]:
    """Return the share of each action's movement that is seen, alike for both sides."""
    count = len(ARKIT_ACTIONS)
    normal, right = torch.zeros(count, count), torch.zeros(count)
    rest = points(pictures.identity, torch.zeros_like(pictures.expression)) + offset
    basis = points(torch.zeros(count, pictures.identity.shape[1]), torch.eye(count))
    basis = basis - points(torch.zeros(1, pictures.identity.shape[1]), torch.zeros(1, count))
    start, _ = project(rest, pictures.camera)
    error = (pictures.observed - start) / ruler[:, None, None]
    for row in range(len(rest)):
        active = torch.nonzero(pictures.expression[row])[:, 0]
        if len(active):
            moved = rest[row] + pictures.expression[row, active, None, None] * basis[active]
            image, _ = project(moved, pictures.camera[row : row + 1].expand(len(active), 25))
            columns = ((image - start[row]) / ruler[row]).flatten(1)
            normal[active[:, None], active] += columns @ columns.T
            right[active] += columns @ error[row].flatten()
    prior = GAIN_PRIOR * normal.diagonal().max()
    gain = torch.linalg.solve(normal + prior * torch.eye(count), right + prior)
    symmetric: Tensor = ((gain + gain[mirror]) / 2).clamp(MIN_GAIN, MAX_GAIN)
    return symmetric


def main() -> None:
    """Render, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("assets", type=Path, help="folder of MakeHuman's system assets")
    parser.add_argument("--out", type=Path, default=Path("galatea/data") / RESOURCE)
    parser.add_argument("--people", type=int, default=120)
    parser.add_argument("--expressions", type=int, default=5)
    parser.add_argument("--device", default="cpu", help="of the ray caster: cpu or cuda")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    model = HeadModel.load()
    pictures = look(model, args.assets, range(FIRST_SEED, FIRST_SEED + args.people), args.expressions, args.device)
    tensors = calibrate(model, pictures)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, args.out)
    logger.info("median spread %.2f%% of the inter-pupil distance", 100 * float(tensors["spread"].median()))


if __name__ == "__main__":
    main()
