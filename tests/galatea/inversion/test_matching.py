"""What a photo says at once about the start of an inversion."""

import torch

from galatea.cameras import orbit
from galatea.eg3d.checkpoint import load_generator
from galatea.inversion.matching import match_hair, match_light
from galatea.inversion.target import InversionTarget
from galatea.morphable.head import HeadCoefficients

FACE_ROWS, FACE_COLUMNS = slice(18, 50), slice(20, 44)


def portrait(generator, ws, residuals=None):
    """A portrait of a known latent at 64 pixels; its face is a box."""
    camera, head = orbit(torch.zeros(1), torch.zeros(1)), HeadCoefficients(torch.zeros(1, 100), torch.zeros(1, 52))
    with torch.no_grad():
        rendering = generator.render(generator.planes(ws, head, residuals), camera, ws, 64)
    face = torch.zeros(1, 1, 64, 64)
    face[..., FACE_ROWS, FACE_COLUMNS] = 1
    image, matte = rendering.image_raw, rendering.alpha
    return InversionTarget(image, torch.zeros_like(image), matte, face, matte, camera, head)


@torch.no_grad()
def test_the_start_takes_the_hair_colour_of_the_photo():
    generator = load_generator("builtin", "cpu")
    has_hair = generator.typical_codes[:, generator.code_fields["hair_style"]][:, 0] < 0.5
    start = generator.mapping(generator.typical_codes[has_hair][:1])
    change = torch.tensor([[0.3, 0.1, -0.05]])
    target = portrait(generator, generator.tint_hair(start, change))
    found = match_hair(generator, target.at(32), start, {})

    def distance(ws):
        return (generator.tint.read(ws[:, -1]) - generator.tint.read(start[:, -1]) - change).abs().amax()

    assert distance(found) < 0.3 * distance(start)


@torch.no_grad()
def test_the_start_takes_the_light_of_the_photo():
    generator = load_generator("builtin", "cpu")
    start = generator.mapping(generator.typical_codes[2:3])
    change = torch.zeros(1, 9, 3)
    change[:, 1], change[:, 2] = 0.3, -0.2  # From the head's left, and less from above.
    target = portrait(generator, start, {"light": change.view(1, 27, 1, 1)})
    found = match_light(generator, target, start)

    def difference(residuals):
        face = portrait(generator, start, residuals).image - target.image
        return (face * target.face).abs().mean()

    assert difference(found) < 0.3 * difference({})
