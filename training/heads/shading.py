"""Surfaces of the ray caster (warp): the scene, its textures, and the colour of a point.

Skin scatters a little (red light wraps further round than blue), eyes mirror the key light, hair and cloth take a tint.
"""

# warp compiles these functions from their source. So annotations are not postponed, `float(0.0)` declares a variable
# that changes in a loop, and `in` does not exist; Python's type checker knows none of that.
# mypy: ignore-errors
# ruff: noqa: UP018, SIM109, C901

import warp as wp

SKIN, EYE, TEETH, TONGUE, MOUTH, SOCKET, BROW, LASH, HAIR, CLOTH, FRAME, LENS, OBJECT, BEARD = range(14)
"""Material ids; a material is also what decides the part a pixel belongs to. Skin under clothing is seen as CLOTH."""
NUM_MATERIALS = 14
TEXTURE_SIDE = 512
_SIDE = wp.constant(TEXTURE_SIDE)
_EYE, _MOUTH, _SOCKET, _BROW, _LASH, _HAIR = (wp.constant(i) for i in (EYE, MOUTH, SOCKET, BROW, LASH, HAIR))
_TEETH, _TONGUE = wp.constant(TEETH), wp.constant(TONGUE)
_FRAME, _LENS, _OBJECT, _BEARD = (wp.constant(i) for i in (FRAME, LENS, OBJECT, BEARD))


@wp.struct
class Scene:
    """Geometry of one expressed head and its look; colours are linear RGB."""

    mesh: wp.uint64
    normal: wp.array(dtype=wp.vec3)
    rest: wp.array(dtype=wp.vec3)
    light: wp.array(dtype=wp.vec3)
    is_lit: wp.array(dtype=wp.int32)
    is_seen: wp.array(dtype=wp.int32)
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
    iris_scale: float
    lens_opacity: float
    beard: wp.array(dtype=float)
    beard_color: wp.vec3
    has_beard: int
    folds: wp.array(dtype=float)
    num_folds: int


@wp.func
def texel(scene: Scene, texture: int, x: int, y: int) -> wp.vec4:
    """Return one texel as linear RGB and opacity; coordinates are clamped to the texture."""
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
    """Interpolate texture coordinates in a triangle."""
    return scene.uv[3 * face] * bu + scene.uv[3 * face + 1] * bv + scene.uv[3 * face + 2] * (1.0 - bu - bv)


@wp.func
def blend3(scene: Scene, values: wp.array(dtype=wp.vec3), face: int, bu: float, bv: float) -> wp.vec3:
    """Interpolate a vertex attribute in a triangle."""
    a, b, c = scene.face[3 * face], scene.face[3 * face + 1], scene.face[3 * face + 2]
    return values[a] * bu + values[b] * bv + values[c] * (1.0 - bu - bv)


@wp.func
def is_solid(material: int) -> bool:
    """Return whether a material stops every ray."""
    return material < _BROW or material == _FRAME or material == _OBJECT


@wp.func
def beard_weight(scene: Scene, face: int, bu: float, bv: float) -> float:
    """Return how densely a beard covers a point; less than 0 high up in its shells."""
    a, b, c = scene.face[3 * face], scene.face[3 * face + 1], scene.face[3 * face + 2]
    return scene.beard[a] * bu + scene.beard[b] * bv + scene.beard[c] * (1.0 - bu - bv)


@wp.func
def beard_cover(scene: Scene, face: int, bu: float, bv: float) -> float:
    """Return the opacity of a beard's shell: strands that hang down, fewer the higher the shell."""
    rest = blend3(scene, scene.rest, face, bu, bv)
    strand = wp.noise(wp.uint32(7), wp.vec3(rest[0] * 600.0, rest[1] * 90.0, rest[2] * 600.0))
    patch = wp.noise(wp.uint32(8), rest * 45.0)
    return wp.clamp((beard_weight(scene, face, bu, bv) + 0.75 * strand + 0.25 * patch) * 1.7, 0.0, 0.95)


@wp.func
def opacity(scene: Scene, face: int, bu: float, bv: float) -> float:
    """Return how much of a ray a surface point stops."""
    material = scene.material[face]
    if is_solid(material):
        return 1.0
    if material == _LENS:
        return scene.lens_opacity
    if material == _BEARD:
        return beard_cover(scene, face, bu, bv)
    return sample(scene, scene.texture[material], face_uv(scene, face, bu, bv))[3]


@wp.func
def luminance(color: wp.vec3) -> float:
    """Return the luminance of linear RGB."""
    return 0.2126 * color[0] + 0.7152 * color[1] + 0.0722 * color[2]


@wp.func
def wrapped(cosine: float, wrap: float) -> float:
    """Return Lambert's cosine, wrapped round the terminator and normalised."""
    return wp.max(0.0, (cosine + wrap) / (1.0 + wrap))


@wp.func
def highlight(n: wp.vec3, view: wp.vec3, light: wp.vec3, exponent: float) -> float:
    """Return the Blinn-Phong highlight, roughly normalised."""
    half = wp.normalize(view + light)
    return wp.pow(wp.max(0.0, wp.dot(n, half)), exponent) * wp.max(0.0, wp.dot(n, light)) * (exponent + 8.0) / 25.0


@wp.func
def cloth_cover(scene: Scene, rest: wp.vec3) -> float:
    """Return 1 where clothing covers a point of the rest head; its edge is a tilted, slightly wavy plane."""
    edge = scene.cloth_height - scene.cloth_tilt * (rest[2] - 0.05) + 0.004 * wp.sin(rest[0] * 23.0)
    return wp.clamp((edge - rest[1]) * 260.0 + 0.5, 0.0, 1.0)


@wp.func
def eye_albedo(scene: Scene, uv: wp.vec2, iris_scale: float) -> wp.vec3:
    """Sclera and pattern from the texture; the iris takes the tint as its colour."""
    centre = wp.vec2(361.0 / 512.0, 1.0 - 151.0 / 512.0)
    offset = (uv - wp.vec2(0.5, 0.5)) * (364.0 / 512.0 / iris_scale)
    radius = wp.length(offset)
    reach = wp.min(radius, 138.0 / 512.0)
    found = sample(scene, scene.texture[_EYE], centre + offset * (reach / wp.max(radius, 1.0e-6)))
    color = wp.vec3(found[0], found[1], found[2])
    iris = wp.clamp((60.5 / 512.0 - radius) * 120.0, 0.0, 1.0)
    bright = wp.clamp(luminance(color) / 0.2, 0.0, 1.6)
    return color * (0.9 * (1.0 - iris)) + scene.tint[_EYE] * (bright * iris)


@wp.func
def albedo(scene: Scene, material: int, texture: wp.vec3, rest: wp.vec3, uv: wp.vec2) -> wp.vec3:
    """Return the diffuse colour of a material at a point."""
    tint = scene.tint[material]
    if material == _EYE:
        return eye_albedo(scene, uv, scene.iris_scale)
    if material == _MOUTH or material == _SOCKET or material == _LASH:
        return tint
    if material == _HAIR:
        return tint * wp.clamp(luminance(texture) * scene.hair_gain, 0.3, 1.7)
    if material == _BEARD:
        return tint * (1.0 + 0.5 * wp.noise(wp.uint32(9), wp.vec3(rest[0] * 600.0, rest[1] * 90.0, rest[2] * 600.0)))
    if material == _BROW or material >= _FRAME:
        return tint
    color = wp.cw_mul(texture, tint)
    if material == 0:
        return color * (1.0 - cloth_cover(scene, rest)) + scene.cloth_color * cloth_cover(scene, rest)
    return color


@wp.func
def surface_normal(scene: Scene, face: int, bu: float, bv: float, point: wp.vec3, view: wp.vec3) -> wp.vec3:
    """Return the interpolated unit normal; eyeballs are spheres, cards are turned towards the viewer."""
    material = scene.material[face]
    n = wp.normalize(blend3(scene, scene.normal, face, bu, bv))
    if material == _EYE:
        centre = scene.right_eye
        if point[0] > 0.0:
            centre = scene.left_eye
        n = wp.normalize(point - centre)
    if wp.dot(n, view) < 0.0 and material >= _BROW:
        n = -n
    return n


@wp.func
def folded(scene: Scene, rest: wp.vec3) -> wp.vec3:
    """Return how folds of the skin tilt its normal (x, y), and how deep a point lies in them (z), 0..1."""
    tilt_x, tilt_y, deep = float(0.0), float(0.0), float(0.0)
    if rest[2] < 0.12:
        return wp.vec3(0.0, 0.0, 0.0)
    for fold in range(scene.num_folds):
        at = fold * 8
        x, y = rest[0] - scene.folds[at], rest[1] - scene.folds[at + 1]
        along = x * scene.folds[at + 2] + y * scene.folds[at + 3]
        length = scene.folds[at + 4]
        if wp.abs(along) < length:
            wave = 0.0022 * wp.noise(wp.uint32(11 + fold), rest * 55.0)
            across = y * scene.folds[at + 2] - x * scene.folds[at + 3] + scene.folds[at + 5] * along * along + wave
            far = across / scene.folds[at + 6]
            if wp.abs(far) < 3.0:
                end = along / length
                depth = scene.folds[at + 7] * wp.exp(-0.5 * far * far) * (1.0 - end * end)
                tilt_x += depth * far * scene.folds[at + 3]
                tilt_y -= depth * far * scene.folds[at + 2]
                deep += depth
    return wp.vec3(tilt_x, tilt_y, wp.min(deep, 1.0))


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
        if material == _LENS or material == _BEARD:
            cover = opacity(scene, face, bu, bv)
        if cover < 0.02:
            return wp.vec4(0.0, 0.0, 0.0, 0.0)
    rest = blend3(scene, scene.rest, face, bu, bv)
    base = albedo(scene, material, wp.vec3(found[0], found[1], found[2]), rest, uv)
    if material == 0 and scene.has_beard == 1:
        grain = 0.6 + 0.8 * wp.abs(wp.noise(wp.uint32(5), rest * 350.0)) + 0.4 * wp.noise(wp.uint32(6), rest * 60.0)
        base = wp.lerp(base, scene.beard_color, wp.clamp(beard_weight(scene, face, bu, bv) * grain, 0.0, 0.9))
    light = blend3(scene, scene.light, face, bu, bv)
    if material == _HAIR:
        cover *= wp.clamp(1.0 + 2.0 * light[1], 0.0, 1.0)
        light = wp.vec3(light[0], wp.max(light[1], 0.05), wp.max(light[2], 0.02))
    n = surface_normal(scene, face, bu, bv, point, view)
    if material == 0 and scene.num_folds > 0:
        fold = folded(scene, rest)
        n = wp.normalize(n + wp.vec3(fold[0], fold[1], 0.0) * 0.75)
        base = base * (1.0 - 0.42 * fold[2])
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
    if material == _FRAME or material == _LENS:
        shine = 0.12
        exponent = 90.0
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
    if material == _LENS:
        mirror = 0.012 + 0.4 * rim + 0.04 * wp.clamp(3.0 * n[1] + 0.8 * n[0], 0.0, 1.0)
        color = color * cover + scene.sky * mirror
        cover = wp.min(1.0, cover + mirror)
        color = color / cover
    return wp.vec4(color[0], color[1], color[2], cover)
