"""Finds a patch's shape: the template that overlaps it most after normalising position and size."""

import functools

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from lidit_jax.shapes_world import SHAPES

MIN_OVERLAP = 0.75  # with a template; below that it is not one of our shapes
BLURS = (0, 0.6, 1.1)  # in pixels, of the templates
GRID = 24


def nearest_shape(soft_HxW: np.ndarray) -> str | None:
    """Returns the shape whose template overlaps most (soft intersection over union), or None.

    soft_HxW: how much of each pixel is in the patch, 0 to 1.
    """
    patch, radius = normalised(soft_HxW)
    overlap = {
        name: max(np.minimum(patch, t).sum() / np.maximum(patch, t).sum() for t in templates)
        for name, templates in _templates(round(4 * radius) / 4).items()
    }
    best = max(overlap, key=overlap.get)
    return best if overlap[best] >= MIN_OVERLAP else None


@functools.cache
def _templates(radius: float) -> dict[str, list[np.ndarray]]:
    """Returns each shape rendered at this RMS radius in pixels, once for each of BLURS."""
    side, fine = int(6 * radius) + 4, 4
    templates = {}
    for name, outline in SHAPES.items():
        canvas = Image.new("L", (side * fine, side * fine))
        corners = side * fine / 2 + radius / unit_moments(name)[1] * fine * outline - 0.5
        ImageDraw.Draw(canvas).polygon([tuple(c) for c in corners], fill=255)
        drawn = np.asarray(canvas.resize((side, side), Image.Resampling.BOX), float) / 255
        blurred = [ndimage.gaussian_filter(drawn, sigma) for sigma in BLURS]
        templates[name] = [normalised(b / np.quantile(b[b > 0.5], 0.8))[0] for b in blurred]
    return templates


@functools.cache
def unit_moments(name: str) -> tuple[np.ndarray, float]:
    """Returns centroid (y, x) and RMS radius of a shape in the units of SHAPES."""
    canvas = Image.new("L", (400, 400))
    ImageDraw.Draw(canvas).polygon([tuple(p) for p in 200 + 150 * SHAPES[name]], fill=1)
    centre_2, radius = moments(np.asarray(canvas, float))
    return (centre_2 - 200) / 150, radius / 150


def moments(soft_HxW: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the centroid (y, x) and the RMS distance from it, in pixels."""
    yx_2xN = np.indices(soft_HxW.shape).reshape(2, -1)
    weight_N = soft_HxW.ravel() / soft_HxW.sum()
    centre_2 = yx_2xN @ weight_N
    return centre_2, np.sqrt(((yx_2xN - centre_2[:, None]) ** 2).sum(axis=0) @ weight_N)


def grid(centre_2: np.ndarray, radius: float) -> np.ndarray:
    """Returns the (y, x) of GRID x GRID points around a centre, up to 2.2 radii away, [2, N]."""
    unit_2xN = np.indices((GRID, GRID)).reshape(2, -1) / (GRID - 1) * 4.4 - 2.2
    return centre_2[:, None] + radius * unit_2xN


def normalised(soft_HxW: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns the patch on a grid, moved and scaled to centroid 0 and RMS radius 1; the radius."""
    centre_2, radius = moments(soft_HxW)
    sampled = ndimage.map_coordinates(soft_HxW, grid(centre_2, radius), order=1)
    return np.clip(sampled, 0, 1), radius
