"""Finds a thing's texture: the one that, rendered at its place, looks most like the picture."""

import numpy as np
from PIL import Image
from scipy import ndimage

from lidit_jax.evaluation import silhouettes
from lidit_jax.scenes import rendering
from lidit_jax.scenes.things import TEXTURES, Thing

BLURS = (0, 0.8)  # in pixels, of the renderings to compare with


def nearest_texture(
    rgb_HxWx3: np.ndarray, centre_2: np.ndarray, unit: float, shape: str, colour: str
) -> str:
    """Returns "striped", "dotted", "hollow", or "" for a plain thing.

    rgb_HxWx3: the picture, 0 to 255. centre_2: (y, x) of the thing's centroid in pixels.
    unit: pixels per unit of its outline. The square around the outline is compared.
    """
    origin_2 = centre_2 - unit * silhouettes.unit_moments(shape)[0]
    first_2 = np.floor(origin_2 - 1.1 * unit).astype(int)
    side = int(np.ceil(2.2 * unit)) + 1
    seen = _window(rgb_HxWx3, first_2, side)
    apart = {}
    for texture in ("", *TEXTURES):
        drawn = _drawn(Thing(shape, colour, texture), (origin_2 - first_2)[::-1] + 0.5, unit, side)
        blurred = [ndimage.gaussian_filter(drawn, (sigma, sigma, 0)) for sigma in BLURS]
        apart[texture] = min(np.square(seen - b).mean() for b in blurred)
    return min(apart, key=apart.get)


def _window(rgb_HxWx3: np.ndarray, first_2: np.ndarray, side: int) -> np.ndarray:
    """Returns the square whose first corner is (y, x), white outside the picture."""
    padded = np.pad(rgb_HxWx3, ((side, side), (side, side), (0, 0)), constant_values=255.0)
    y, x = np.clip(first_2 + side, 0, np.array(padded.shape[:2]) - side)
    return padded[y : y + side, x : x + side]


def _drawn(thing: Thing, centre_xy: np.ndarray, unit: float, side: int) -> np.ndarray:
    fine = rendering.SUPERSAMPLE
    canvas = Image.new("RGB", (side * fine, side * fine), "white")
    rendering.draw(canvas, thing, fine * centre_xy, fine * unit)
    return np.asarray(canvas.resize((side, side), Image.Resampling.BOX), np.float64)
