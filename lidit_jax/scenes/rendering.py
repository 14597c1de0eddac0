"""A scene as a picture: things on white, placed in reading order, in the order they are named."""

import numpy as np
from PIL import Image, ImageChops, ImageDraw
from scipy import ndimage

from lidit_jax.scenes.things import COLOURS, RELATIONS, SHAPES, Scene, Thing

RADIUS = {"small": 0.125, "big": 0.19}  # as a fraction of the picture
MARK = (20, 20, 20)  # the colour of a stripe and a dot
WALL = 0.24  # thickness of a hollow thing's wall, in radii
STRIPE = (-0.27, 0.27)  # top and bottom of the stripe, in radii
DOT = 0.36  # radius of the dot, in radii of the thing
_LOW, _MIDDLE, _HIGH = 0.27, 0.5, 0.73
# Places of things, by the number of things: (x right, y down), in reading order.
PLACES = {
    1: [(_MIDDLE, _MIDDLE)],
    2: [(_LOW, _MIDDLE), (_HIGH, _MIDDLE)],
    3: [(_LOW, _LOW), (_HIGH, _LOW), (_MIDDLE, _HIGH)],
    4: [(_LOW, _LOW), (_HIGH, _LOW), (_LOW, _HIGH), (_HIGH, _HIGH)],
}
JITTER = 0.02
SUPERSAMPLE = 4  # canvas pixels per picture pixel, along each side


def render(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a picture of the scene, uint8 [size, size, 3], on white, with smooth edges.

    The rng moves each thing a little, and picks which side a thing "next to" another is on; the
    same rng state gives the same picture at every size.
    """
    fine = size * SUPERSAMPLE
    canvas = Image.new("RGB", (fine, fine), "white")
    for thing, place in zip(scene.things, _places(scene, rng), strict=True):
        centre = np.asarray(place) + JITTER * rng.uniform(-1, 1, 2)
        draw(canvas, thing.looks, fine * centre, fine * RADIUS[thing.looks.size])
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX))


def _places(scene: Scene, rng: np.random.Generator) -> list[tuple[float, float]]:
    if not scene.relation:
        return PLACES[len(scene.things)]
    side = rng.choice((-1, 1)) if scene.relation == "next to" else 1
    step = side * (_HIGH - _MIDDLE) * np.asarray(RELATIONS[scene.relation])
    return [tuple(_MIDDLE + step), tuple(_MIDDLE - step)]


def draw(canvas: Image.Image, thing: Thing, centre: np.ndarray, radius: float):
    """Draws a thing as it looks, at a centre and radius in canvas pixels."""
    body = _polygon(canvas.size, centre + radius * SHAPES[thing.shape])
    canvas.paste(COLOURS[thing.colour], mask=body)
    if thing.texture == "hollow":
        canvas.paste("white", mask=ImageChops.darker(body, _inside(body, WALL * radius)))
    elif thing.texture:
        canvas.paste(
            MARK, mask=ImageChops.darker(body, _marks(thing.texture, body, centre, radius))
        )


def _polygon(size: tuple[int, int], corners: np.ndarray) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).polygon([tuple(c) for c in corners - 0.5], fill=255)
    return mask


def _marks(texture: str, body: Image.Image, centre: np.ndarray, radius: float) -> Image.Image:
    mask = Image.new("L", body.size)
    draw = ImageDraw.Draw(mask)
    if texture == "dotted":
        draw.ellipse([*(centre - DOT * radius), *(centre + DOT * radius)], fill=255)
    else:
        top, bottom = centre[1] + radius * np.array(STRIPE)
        draw.rectangle([0, top, body.width, bottom], fill=255)
    return mask


def _inside(body: Image.Image, wall: float) -> Image.Image:
    """Returns the part of the body that is farther than `wall` pixels from its outside."""
    away = ndimage.distance_transform_edt(np.asarray(body) > 0)
    return Image.fromarray(np.uint8(255 * (away > wall)))
