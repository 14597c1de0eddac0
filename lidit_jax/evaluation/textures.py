"""Which texture has a thing? That whose dark and white parts agree most with the picture's."""

import functools

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from lidit_jax.evaluation import silhouettes
from lidit_jax.scenes.rendering import DOT, MARK, STRIPE, WALL
from lidit_jax.shapes_world import SHAPES

GRID = 25  # points a side, over the square from -1 to 1 that holds every outline
_FINE = 8  # pixels between two of them, where an outline is drawn


def nearest_texture(
    rgb_HxWx3: np.ndarray, centre_2: np.ndarray, unit: float, shape: str, colour: tuple
) -> str:
    """Returns "striped", "dotted", "hollow", or "" for a plain thing.

    centre_2: (y, x) of its centroid in pixels. unit: how many pixels its outline's 1 is.
    colour: RGB of its body. A point's mixture of body, mark and white is read off the way from the
    body's colour to the other two.
    """
    inside_N, expected = _expected(shape)
    origin_2 = centre_2 - unit * silhouettes.unit_moments(shape)[0]
    where_2xN = origin_2[:, None] + unit * _points()
    rgb_Nx3 = np.stack(
        [ndimage.map_coordinates(c, where_2xN, order=1, mode="nearest") for c in rgb_HxWx3.transpose(2, 0, 1)],
        axis=1,
    )  # fmt: skip
    dark_N, white_N = (_toward(rgb_Nx3, colour, end) for end in (MARK, (255, 255, 255)))
    mixture_3xN = np.stack([dark_N, white_N, np.clip(1 - dark_N - white_N, 0, 1)])
    agreement = {name: mixture_3xN[part_N, range(GRID**2)][inside_N].mean() for name, part_N in expected.items()}  # fmt: skip
    return max(agreement, key=agreement.get)


def _toward(rgb_Nx3: np.ndarray, start: tuple, end: tuple) -> np.ndarray:
    """Returns how far each colour is on the way from one to another, 0 to 1."""
    way = np.subtract(end, start)
    return np.clip((rgb_Nx3 - start) @ way / (way @ way), 0, 1)


def _points() -> np.ndarray:
    """Returns the grid's (y, x), [2, N]."""
    return np.indices((GRID, GRID)).reshape(2, -1) / (GRID - 1) * 2 - 1


@functools.cache
def _expected(shape: str) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns which points are inside a shape, and what each texture has there: 0 dark, 1 white, 2 body."""
    side = _FINE * (GRID - 1)
    canvas = Image.new("L", (side + 1, side + 1))
    corners = (SHAPES[shape] + 1) / 2 * side
    ImageDraw.Draw(canvas).polygon([tuple(c) for c in corners], fill=1)
    away = ndimage.distance_transform_edt(np.pad(np.asarray(canvas), 1))[1:-1, 1:-1] / (side / 2)
    away_N = away[::_FINE, ::_FINE].ravel()
    y_N, x_N = _points()
    striped_N = (STRIPE[0] <= y_N) & (y_N <= STRIPE[1])
    return away_N > 0, {
        "": np.full(GRID**2, 2),
        "striped": np.where(striped_N, 0, 2),
        "dotted": np.where(np.hypot(y_N, x_N) <= DOT, 0, 2),
        "hollow": np.where(away_N > WALL, 1, 2),
    }
