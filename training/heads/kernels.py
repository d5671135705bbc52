"""Ray casting kernels (warp): light reaching every vertex, then the picture.

Light is gathered at vertices (visibility of the key light, openness to the sky) because it is soft: it costs a few rays a
vertex, has no noise, and serves every view of a mesh. Primary rays walk through alpha cards front to back.
"""

# warp reads annotations at run time, so they cannot be postponed: no `from __future__ import annotations` here.

import warp as wp

SKIN, EYE, TEETH, TONGUE, MOUTH, SOCKET, BROW, LASH, HAIR = range(9)
"""Material ids; a material is also what decides the part a pixel belongs to."""
TEXTURE_SIDE = 512
wp.set_module_options({"enable_backward": False})  # Nothing is differentiated; it halves the compilation.
MAX_LAYERS = wp.constant(14)
_SIDE = wp.constant(TEXTURE_SIDE)
_EYE, _MOUTH, _SOCKET, _BROW, _LASH, _HAIR = (wp.constant(i) for i in (EYE, MOUTH, SOCKET, BROW, LASH, HAIR))
_TEETH, _TONGUE = wp.constant(TEETH), wp.constant(TONGUE)


@wp.struct
class Scene:
    """Geometry of one expressed head and its look; colours are linear RGB."""

    mesh: wp.uint64
    normal: wp.array(dtype=wp.vec3)
    rest: wp.array(dtype=wp.vec3)
    light: wp.array(dtype=wp.vec3)
    face: wp.array(dtype=wp.int32)
    uv: wp.array(dtype=wp.vec2)
    material: wp.array(dtype=wp.int32)
    texels: wp.array(dtype=wp.uint8)
    linear: wp.array(dtype=float)
    texture: wp.array(dtype=wp.int32)
    tint: wp.array(dtype=wp.vec3)
    key_direction: wp.vec3
    key_color: wp.vec3
    sky: wp.vec3
    ground: wp.vec3
    shine: float
    hair_gain: float
    cloth_color: wp.vec3
    cloth_height: float
    cloth_tilt: float
    left_eye: wp.vec3
    right_eye: wp.vec3


@wp.func
def texel(scene: Scene, texture: int, x: int, y: int) -> wp.vec4:
    column, row = wp.clamp(x, 0, _SIDE - 1), wp.clamp(y, 0, _SIDE - 1)
    at = ((texture * _SIDE + row) * _SIDE + column) * 4
    return wp.vec4(
        scene.linear[int(scene.texels[at])],
        scene.linear[int(scene.texels[at + 1])],
        scene.linear[int(scene.texels[at + 2])],
        float(scene.texels[at + 3]) / 255.0,
    )


@wp.func
def sample(scene: Scene, texture: int, uv: wp.vec2) -> wp.vec4:
    """Bilinear look-up; v points up."""
    x = uv[0] * float(_SIDE) - 0.5
    y = (1.0 - uv[1]) * float(_SIDE) - 0.5
    left, top = int(wp.floor(x)), int(wp.floor(y))
    u, v = x - wp.floor(x), y - wp.floor(y)
    upper = texel(scene, texture, left, top) * (1.0 - u) + texel(scene, texture, left + 1, top) * u
    lower = texel(scene, texture, left, top + 1) * (1.0 - u) + texel(scene, texture, left + 1, top + 1) * u
    return upper * (1.0 - v) + lower * v


@wp.func
def face_uv(scene: Scene, face: int, bu: float, bv: float) -> wp.vec2:
    return scene.uv[3 * face] * bu + scene.uv[3 * face + 1] * bv + scene.uv[3 * face + 2] * (1.0 - bu - bv)


@wp.func
def opacity(scene: Scene, face: int, bu: float, bv: float) -> float:
    material = scene.material[face]
    if material < _BROW:
        return 1.0
    return sample(scene, scene.texture[material], face_uv(scene, face, bu, bv))[3]


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
        if material < _BROW:
            return 0.0
        if material == _HAIR:
            left *= 1.0 - 0.9 * opacity(scene, hit.face, hit.u, hit.v)
        start = start + hit.t + 2.0e-3
        if left < 0.05:
            return 0.0
    return left


@wp.func
def frame_right(n: wp.vec3) -> wp.vec3:
    other = wp.vec3(0.0, 1.0, 0.0)
    if wp.abs(n[1]) > 0.9:
        other = wp.vec3(1.0, 0.0, 0.0)
    return wp.normalize(wp.cross(other, n))


@wp.func
def gather_eye_light(scene: Scene, position: wp.vec3, vertex: int) -> None:
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
    scene.light[vertex] = wp.vec3(seen * (shade + 0.15), shade, 0.5 * shade)


@wp.kernel
def gather_light(
    scene: Scene, position: wp.array(dtype=wp.vec3), vertex_material: wp.array(dtype=wp.int32), seed: int
) -> None:
    """Store at every vertex (key visibility, openness, openness weighted towards the sky)."""
    vertex = wp.tid()
    material = vertex_material[vertex]
    if material == _BROW or material == _LASH:
        scene.light[vertex] = wp.vec3(0.9, 0.8, 0.5)
        return
    if material == _EYE:
        gather_eye_light(scene, position[vertex], vertex)
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
        key_rays, sky_rays = int(1), int(3)
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
            if under.result and scene.material[under.face] == 0:
                buried += 1
        free = transmittance(scene, origin, towards, 0.7)
        open_all += free / float(sky_rays)
        open_sky += free * (0.5 + 0.5 * towards[1]) / float(sky_rays)
    if buried >= 2:
        # Hair under the skin: marked, so that what pierces the skin fades away.
        open_all = -1.0
    if material == _TEETH or material == _TONGUE:
        # Light that bounces about in the mouth is not traced.
        seen, open_all, open_sky = 0.35 + 0.65 * seen, 0.5 + 0.5 * open_all, 0.3 + 0.5 * open_sky
    if material == _MOUTH or material == _SOCKET:
        open_all, open_sky = 0.3 + 0.7 * open_all, 0.2 + 0.6 * open_sky
    scene.light[vertex] = wp.vec3(seen, open_all, open_sky)


@wp.func
def blend3(scene: Scene, values: wp.array(dtype=wp.vec3), face: int, bu: float, bv: float) -> wp.vec3:
    a, b, c = scene.face[3 * face], scene.face[3 * face + 1], scene.face[3 * face + 2]
    return values[a] * bu + values[b] * bv + values[c] * (1.0 - bu - bv)


@wp.func
def luminance(color: wp.vec3) -> float:
    return 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]


@wp.func
def wrapped(cosine: float, wrap: float) -> float:
    return wp.max(0.0, (cosine + wrap) / (1.0 + wrap))


@wp.func
def highlight(n: wp.vec3, view: wp.vec3, light: wp.vec3, exponent: float) -> float:
    half = wp.normalize(view + light)
    return wp.pow(wp.max(0.0, wp.dot(n, half)), exponent) * wp.max(0.0, wp.dot(n, light)) * (exponent + 8.0) / 25.0


@wp.func
def cloth_cover(scene: Scene, rest: wp.vec3) -> float:
    edge = scene.cloth_height - scene.cloth_tilt * (rest[2] - 0.05) + 0.004 * wp.sin(rest[0] * 23.0)
    return wp.clamp((edge - rest[1]) * 260.0 + 0.5, 0.0, 1.0)


@wp.func
def eye_albedo(scene: Scene, uv: wp.vec2) -> wp.vec3:
    """Sclera and pattern from the texture; the iris takes the tint as its colour."""
    centre = wp.vec2(361.0 / 512.0, 1.0 - 151.0 / 512.0)
    offset = (uv - wp.vec2(0.5, 0.5)) * (364.0 / 512.0)
    radius = wp.length(offset)
    reach = wp.min(radius, 138.0 / 512.0)
    found = sample(scene, scene.texture[_EYE], centre + offset * (reach / wp.max(radius, 1.0e-6)))
    color = wp.vec3(found[0], found[1], found[2])
    iris = wp.clamp((60.5 / 512.0 - radius) * 120.0, 0.0, 1.0)
    bright = wp.clamp(luminance(color) / 0.2, 0.0, 1.6)
    return color * (0.9 * (1.0 - iris)) + scene.tint[_EYE] * (bright * iris)


@wp.func
def albedo(scene: Scene, material: int, texture: wp.vec3, rest: wp.vec3, uv: wp.vec2) -> wp.vec3:
    tint = scene.tint[material]
    if material == _EYE:
        return eye_albedo(scene, uv)
    if material == _MOUTH or material == _SOCKET or material == _LASH:
        return tint
    if material == _HAIR:
        return tint * wp.clamp(luminance(texture) * scene.hair_gain, 0.3, 1.7)
    if material == _BROW:
        return tint
    color = wp.cw_mul(texture, tint)
    if material == 0:
        return color * (1.0 - cloth_cover(scene, rest)) + scene.cloth_color * cloth_cover(scene, rest)
    return color


@wp.func
def shade(scene: Scene, face: int, bu: float, bv: float, point: wp.vec3, view: wp.vec3) -> wp.vec4:
    """Colour (linear) and opacity of a surface point seen from `view` (unit, towards the camera)."""
    material = scene.material[face]
    uv = face_uv(scene, face, bu, bv)
    found = wp.vec4(1.0, 1.0, 1.0, 1.0)
    if scene.texture[material] >= 0 and material != _EYE:
        found = sample(scene, scene.texture[material], uv)
    cover = float(1.0)
    if material >= _BROW:
        cover = wp.min(1.0, found[3] * 1.15)
        if material == _LASH:
            cover = 0.55 * found[3]
        if cover < 0.02:
            return wp.vec4(0.0, 0.0, 0.0, 0.0)
    rest = blend3(scene, scene.rest, face, bu, bv)
    base = albedo(scene, material, wp.vec3(found[0], found[1], found[2]), rest, uv)
    light = blend3(scene, scene.light, face, bu, bv)
    if material == _HAIR:
        cover *= wp.clamp(1.0 + 2.0 * light[1], 0.0, 1.0)
        light = wp.vec3(light[0], wp.max(light[1], 0.05), wp.max(light[2], 0.02))
    n = wp.normalize(blend3(scene, scene.normal, face, bu, bv))
    if material == _EYE:
        centre = scene.right_eye
        if point[0] > 0.0:
            centre = scene.left_eye
        n = wp.normalize(point - centre)
    if wp.dot(n, view) < 0.0 and material >= _BROW:
        n = -n
    cosine = wp.dot(n, scene.key_direction)
    seen = wp.clamp(light[0], 0.0, 1.0)
    diffuse = wp.vec3(wrapped(cosine, 0.05), wrapped(cosine, 0.05), wrapped(cosine, 0.05)) * seen
    shine = float(0.0)
    exponent = float(20.0)
    cloth = cloth_cover(scene, rest)
    if material == 0:
        soft = wp.vec3(wrapped(cosine, 0.35), wrapped(cosine, 0.16), wrapped(cosine, 0.1))
        shadow = wp.vec3(wp.pow(seen, 0.75), wp.pow(seen, 0.95), seen)
        diffuse = wp.cw_mul(soft, shadow)
        shine = 0.028 * scene.shine * (1.0 - cloth)
    if material == _HAIR:
        diffuse = wp.vec3(1.0, 1.0, 1.0) * (wrapped(cosine, 0.5) * seen)
        shine = 0.02
        exponent = 9.0
    if material == _TEETH or material == _TONGUE:
        shine = 0.05
        exponent = 60.0
    facing = wp.clamp(wp.dot(n, view), 0.0, 1.0)
    rim = wp.pow(1.0 - facing, 4.0)
    around = scene.ground * wp.max(0.0, light[1] - light[2]) + scene.sky * light[2]
    color = wp.cw_mul(base, wp.cw_mul(diffuse, scene.key_color) + around)
    color += scene.key_color * (shine * (1.0 + 4.0 * rim) * seen * highlight(n, view, scene.key_direction, exponent))
    if material == 0:
        color += around * (0.06 * rim * scene.shine * (1.0 - cloth))
    if material == _EYE:
        mirrored = n * (2.0 * wp.dot(n, view)) - view
        glint = wp.pow(wp.max(0.0, wp.dot(mirrored, scene.key_direction)), 160.0)
        color += scene.key_color * (0.9 * seen * glint) + scene.sky * (0.03 * light[1])
    return wp.vec4(color[0], color[1], color[2], cover)


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
) -> None:
    """Trace grid x grid rays through each listed pixel; premultiplied linear colour, depth along z, material."""
    index = wp.tid()
    pixel = pixels[index]
    origin = wp.transform_point(cam2world, wp.vec3(0.0, 0.0, 0.0))
    total = wp.vec4(0.0, 0.0, 0.0, 0.0)
    nearest = float(0.0)
    best = int(-1)
    strongest = float(0.0)
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
            found = shade(scene, hit.face, hit.u, hit.v, point, -direction)
            share = left * found[3]
            total += wp.vec4(found[0] * share, found[1] * share, found[2] * share, share)
            if share > strongest:
                strongest = share
                nearest = start * along
                best = scene.material[hit.face]
                if best == 0 and cloth_cover(scene, blend3(scene, scene.rest, hit.face, hit.u, hit.v)) > 0.5:
                    best = 9
            left *= 1.0 - found[3]
            if left < 0.02:
                break
            start += 2.0e-5
    scale = 1.0 / float(grid * grid)
    color[pixel] = total * scale
    if grid == 1:
        depth[pixel] = nearest
        material[pixel] = best
