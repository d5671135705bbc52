"""Ray casting kernels (warp): light reaching every vertex, then the picture.

Light is gathered at vertices (visibility of the key light, openness to the sky) because it is soft: it costs a few
rays a vertex, has no noise, and serves every view of a mesh. Primary rays walk through alpha cards front to back.
"""

# warp compiles these functions from their source. So annotations are not postponed, `float(0.0)` declares a variable
# that changes in a loop, and `in` does not exist; Python's type checker knows none of that.
# mypy: ignore-errors
# ruff: noqa: UP018, RUF046, SIM109, C901

import warp as wp

from training.heads.shading import (
    BEARD,
    BROW,
    CLOTH,
    EYE,
    HAIR,
    LASH,
    LENS,
    MOUTH,
    SKIN,
    SOCKET,
    TEETH,
    TONGUE,
    Scene,
    blend3,
    cloth_cover,
    is_solid,
    opacity,
    shade,
    surface_normal,
)

# Nothing is differentiated, and unrolled loops over layers would only make compilation slow.
wp.set_module_options({"enable_backward": False, "max_unroll": 1})
MAX_LAYERS = wp.constant(14)
_EYE, _MOUTH, _SOCKET, _BROW, _LASH, _HAIR = (wp.constant(i) for i in (EYE, MOUTH, SOCKET, BROW, LASH, HAIR))
_SKIN, _TEETH, _TONGUE = wp.constant(SKIN), wp.constant(TEETH), wp.constant(TONGUE)
_CLOTH, _LENS, _BEARD = wp.constant(CLOTH), wp.constant(LENS), wp.constant(BEARD)


@wp.func
def transmittance(scene: Scene, origin: wp.vec3, direction: wp.vec3, reach: float) -> float:
    """Light left after everything on a shadow ray; brows and lashes cast none."""
    left = float(1.0)
    start = float(0.0)
    for _layer in range(3):
        hit = wp.mesh_query_ray(scene.mesh, origin + direction * start, direction, reach - start)
        if not hit.result:
            return left
        material = scene.material[hit.face]
        if is_solid(material):
            return 0.0
        if material == _HAIR:
            left *= 1.0 - 0.9 * opacity(scene, hit.face, hit.u, hit.v)
        if material == _LENS:
            left *= 1.0 - 0.8 * scene.lens_opacity
        start = start + hit.t + 2.0e-3
        if left < 0.05:
            return 0.0
    return left


@wp.func
def frame_right(n: wp.vec3) -> wp.vec3:
    """Return a unit vector perpendicular to a unit vector."""
    other = wp.vec3(0.0, 1.0, 0.0)
    if wp.abs(n[1]) > 0.9:
        other = wp.vec3(1.0, 0.0, 0.0)
    return wp.normalize(wp.cross(other, n))


@wp.func
def gather_eye_light(scene: Scene, position: wp.vec3) -> wp.vec3:
    """Eyeballs are lit as a whole, from in front of the lids, darker under the upper lid."""
    centre = scene.right_eye
    if position[0] > 0.0:
        centre = scene.left_eye
    state = wp.rand_init(17, int(position[0] > 0.0))
    seen = float(0.0)
    for _ray in range(6):
        jitter = wp.vec3(wp.randn(state), wp.randn(state), 0.0) * 0.08
        towards = wp.normalize(scene.key_direction + jitter)
        origin = centre + wp.vec3(0.0, 0.0, 0.055) + jitter * 0.1
        seen += transmittance(scene, origin, towards, 3.0) / 6.0
    lid = wp.clamp((position[1] - centre[1]) / 0.033, -1.0, 1.0)
    shade = 0.72 - 0.2 * lid
    seen *= wp.clamp(0.75 + 0.6 * scene.key_direction[2], 0.0, 1.0)
    return wp.vec3(seen * (shade + 0.15), shade, 0.5 * shade)


@wp.kernel
def gather_light(
    scene: Scene,
    position: wp.array(dtype=wp.vec3),
    vertex_material: wp.array(dtype=wp.int32),
    seed: int,
    vertices: wp.array(dtype=wp.int32),
    light: wp.array(dtype=wp.vec3),
) -> None:
    """Store at every listed vertex (key visibility, openness, openness weighted towards the sky)."""
    vertex = vertices[wp.tid()]
    material = vertex_material[vertex]
    if material == _BROW or material == _LASH or material == _LENS or material == _BEARD:
        light[vertex] = wp.vec3(0.9, 0.8, 0.5)
        return
    if material == _EYE:
        light[vertex] = gather_eye_light(scene, position[vertex])
        return
    state = wp.rand_init(seed, vertex)
    n = scene.normal[vertex]
    is_hair = material == _HAIR
    side = scene.key_direction
    if is_hair and wp.dot(n, position[vertex]) < 0.0:
        n = -n
    key_rays, sky_rays = int(3), int(7)
    if is_hair:
        key_rays, sky_rays = int(2), int(3)
    if material == _TEETH or material == _TONGUE or material == _MOUTH or material == _SOCKET:
        key_rays, sky_rays = int(2), int(9)
    right = frame_right(side)
    up = wp.cross(side, right)
    seen = float(0.0)
    if is_hair or wp.dot(n, side) > -0.35:
        for ray in range(key_rays):
            angle = 6.2831853 * (float(ray) + wp.randf(state)) / float(key_rays)
            radius = 0.16 * wp.sqrt(wp.randf(state))
            towards = wp.normalize(side + right * (radius * wp.cos(angle)) + up * (radius * wp.sin(angle)))
            origin = position[vertex] + n * 4.0e-3
            if is_hair:
                origin = position[vertex] + towards * 2.0e-2
            seen += transmittance(scene, origin, towards, 3.0) / float(key_rays)
    right = frame_right(n)
    up = wp.cross(n, right)
    open_all, open_sky = float(0.0), float(0.0)
    twist = wp.randf(state)
    buried = int(0)
    for ray in range(sky_rays):
        angle = 6.2831853 * (float(ray) * 0.618034 + twist)
        radius = wp.sqrt((float(ray) + wp.randf(state)) / float(sky_rays))
        lift = wp.sqrt(wp.max(0.0, 1.0 - radius * radius))
        towards = right * (radius * wp.cos(angle)) + up * (radius * wp.sin(angle)) + n * lift
        origin = position[vertex] + n * 4.0e-3
        if is_hair:
            origin = position[vertex] + towards * 1.5e-2
            under = wp.mesh_query_ray(scene.mesh, position[vertex] + towards * 5.0e-4, towards, 0.05)
            if under.result and scene.material[under.face] == _SKIN:
                buried += 1
        free = transmittance(scene, origin, towards, 0.7)
        open_all += free / float(sky_rays)
        open_sky += free * (0.5 + 0.5 * towards[1]) / float(sky_rays)
    if buried >= 2:
        # Hair under the skin: marked, so that what pierces the skin fades away.
        open_all = -1.0
    if material == _TEETH:
        # Light that bounces about in the mouth is not traced.
        seen, open_all, open_sky = 0.1 + 0.8 * seen, 0.15 + 0.75 * open_all, 0.1 + 0.65 * open_sky
    if material == _TONGUE:
        seen, open_all, open_sky = 0.08 + 0.7 * seen, 0.16 + 0.7 * open_all, 0.08 + 0.5 * open_sky
    if material == _MOUTH:
        open_all, open_sky = 0.08 + 0.5 * open_all, 0.04 + 0.4 * open_sky
    if material == _SOCKET:
        open_all, open_sky = 0.3 + 0.7 * open_all, 0.2 + 0.6 * open_sky
    light[vertex] = wp.vec3(seen, open_all, open_sky)


@wp.kernel
def add_along(
    source: wp.array(dtype=wp.int32),
    target: wp.array(dtype=wp.int32),
    values: wp.array(dtype=wp.vec3),
    total: wp.array(dtype=wp.vec3),
) -> None:
    """Add the value at the source of each edge to the total at its target."""
    edge = wp.tid()
    wp.atomic_add(total, target[edge], values[source[edge]])


@wp.func
def see(scene: Scene, face: int) -> bool:
    """Note that a triangle is seen; returns whether it is lit."""
    a, b, c = scene.face[3 * face], scene.face[3 * face + 1], scene.face[3 * face + 2]
    if scene.is_lit[a] * scene.is_lit[b] * scene.is_lit[c] == 1:
        return True
    scene.is_seen[a] = 1
    scene.is_seen[b] = 1
    scene.is_seen[c] = 1
    return False


@wp.kernel
def find_seen(scene: Scene, cam2world: wp.mat44, focal: float, side: int) -> None:
    """Note the triangles on the rays through side x side pixels, up to the first solid one."""
    index = wp.tid()
    origin = wp.transform_point(cam2world, wp.vec3(0.0, 0.0, 0.0))
    x = (float(index % side) + 0.5) / float(side)
    y = (float(index // side) + 0.5) / float(side)
    direction = wp.normalize(wp.transform_vector(cam2world, wp.vec3((x - 0.5) / focal, (y - 0.5) / focal, 1.0)))
    start = float(1.2)
    for _layer in range(MAX_LAYERS):
        hit = wp.mesh_query_ray(scene.mesh, origin + direction * start, direction, 4.5 - start)
        if not hit.result:
            return
        see(scene, hit.face)
        if is_solid(scene.material[hit.face]):
            return
        start = start + hit.t + 2.0e-5


@wp.kernel
def cast(
    scene: Scene,
    cam2world: wp.mat44,
    focal: float,
    side: int,
    grid: int,
    pixels: wp.array(dtype=wp.int32),
    color: wp.array(dtype=wp.vec4),
    depth: wp.array(dtype=float),
    material: wp.array(dtype=wp.int32),
    normal: wp.array(dtype=wp.vec3),
    is_unlit: wp.array(dtype=wp.int32),
) -> None:
    """Trace grid x grid rays through each listed pixel; premultiplied linear colour, depth along z, material, and the
    normal in the camera's frame (of what covers the pixel most); and whether any of it was not lit yet.
    """
    index = wp.tid()
    pixel = pixels[index]
    origin = wp.transform_point(cam2world, wp.vec3(0.0, 0.0, 0.0))
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    nearest = float(0.0)
    best = int(-1)
    strongest = float(0.0)
    facing = wp.vec3(0.0, 0.0, 0.0)
    unlit = int(0)
    for part in range(grid * grid):
        x = (float(pixel % side) + (float(part % grid) + 0.5) / float(grid)) / float(side)
        y = (float(pixel // side) + (float(part // grid) + 0.5) / float(grid)) / float(side)
        ray = wp.vec3((x - 0.5) / focal, (y - 0.5) / focal, 1.0)
        direction = wp.normalize(wp.transform_vector(cam2world, ray))
        along = 1.0 / wp.length(ray)
        start = float(1.2)
        left = float(1.0)
        for _layer in range(MAX_LAYERS):
            hit = wp.mesh_query_ray(scene.mesh, origin + direction * start, direction, 4.5 - start)
            if not hit.result:
                break
            start = start + hit.t
            point = origin + direction * start
            if not see(scene, hit.face):
                unlit = 1
            found = shade(scene, hit.face, hit.u, hit.v, point, -direction)
            share = left * found[3]
            total += wp.vec4(found[0] * share, found[1] * share, found[2] * share, share)
            if share > strongest:
                strongest = share
                nearest = start * along
                facing = surface_normal(scene, hit.face, hit.u, hit.v, point, -direction)
                best = scene.material[hit.face]
                if best == _SKIN and cloth_cover(scene, blend3(scene, scene.rest, hit.face, hit.u, hit.v)) > 0.5:
                    best = _CLOTH
            left *= 1.0 - found[3]
            if left < 0.02:
                break
            start += 2.0e-5
    scale = 1.0 / float(grid * grid)
    color[pixel] = total * scale
    is_unlit[pixel] = unlit
    if grid == 1:
        depth[pixel] = nearest
        material[pixel] = best
        normal[pixel] = wp.transform_vector(wp.transpose(cam2world), facing)


@wp.kernel
def look(scene: Scene, origin: wp.vec3, points: wp.array(dtype=wp.vec3), free: wp.array(dtype=float)) -> None:
    """Store which share of the light from each surface point reaches the camera; brows and lashes hide nothing."""
    index = wp.tid()
    reach = wp.length(points[index] - origin) - 1.0e-3
    direction = wp.normalize(points[index] - origin)
    start = float(1.2)
    left = float(1.0)
    for _layer in range(MAX_LAYERS):
        hit = wp.mesh_query_ray(scene.mesh, origin + direction * start, direction, reach - start)
        if not hit.result:
            break
        start = start + hit.t + 2.0e-5
        hit_material = scene.material[hit.face]
        if is_solid(hit_material):
            left = 0.0
            break
        if hit_material == _HAIR:
            left *= 1.0 - wp.min(1.0, 1.15 * opacity(scene, hit.face, hit.u, hit.v))
        if hit_material == _LENS or hit_material == _BEARD:
            left *= 1.0 - opacity(scene, hit.face, hit.u, hit.v)
    free[index] = left
