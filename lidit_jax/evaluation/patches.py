"""Connected patches of a picture on white, for the judges of the small worlds."""

from collections.abc import Iterator

import numpy as np
from PIL import Image
from scipy import ndimage

from lidit_jax.errors import InputError

LARGEST = 64  # pixels; more would show no more
SOFT = 2  # pixels that a patch's soft edges may reach beyond it


def shrunk(image: np.ndarray, least: int) -> np.ndarray:
    """Returns uint8 [height, width, 3] with neither side longer than LARGEST.

    Raises InputError if a side is then shorter than `least`.
    """
    shrink = min(1, LARGEST / max(image.shape[:2]))
    height, width = (round(shrink * n) for n in image.shape[:2])
    if min(height, width) < least:
        raise InputError(
            f"a picture of {image.shape[1]}x{image.shape[0]} pixels, shrunk to {width}x{height}; "
            f"sides must be {least} or more to recognise things: draw it larger, or less elongated"
        )
    if shrink == 1:
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BOX))


def patches(cover_HxW: np.ndarray, least: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields for each patch, in reading order, its pixels and the pixels it may reach, bool [H, W].

    cover_HxW: how much of a pixel is not white. least: what it must exceed in a patch; pixels
      around patches belong to the nearest one.
    """
    labels_HxW, count = ndimage.label(cover_HxW > least, structure=np.ones((3, 3)))
    away_HxW, nearest = ndimage.distance_transform_edt(labels_HxW == 0, return_indices=True)
    owner_HxW = np.where(away_HxW <= SOFT, labels_HxW[tuple(nearest)], 0)
    for label in range(1, count + 1):
        yield labels_HxW == label, owner_HxW == label
