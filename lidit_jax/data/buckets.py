"""The size at which an image is trained: its bin, and the resize and crop that take it there."""

import math

import numpy as np
from PIL import Image

Size = tuple[int, int]  # height, width in pixels


def nearest_bin(size: Size, bins: list[Size]) -> Size:
    """Returns the bin of the nearest aspect ratio, measured by |log(h/w) - log(b_h/b_w)|.

    The logarithm treats a tall image as its transpose. Ties go to the larger area.
    """
    ratio = math.log(size[0] / size[1])
    return min(bins, key=lambda b: (abs(ratio - math.log(b[0] / b[1])), -b[0] * b[1]))


def fit(image_HxWx3: np.ndarray, size: Size) -> np.ndarray:
    """Returns the uint8 image scaled to cover `size` (bicubic, anti-aliased) and centre-cropped to it."""
    height, width = image_HxWx3.shape[:2]
    if (height, width) == tuple(size):
        return image_HxWx3
    scale = max(size[0] / height, size[1] / width)
    scaled = (max(round(width * scale), size[1]), max(round(height * scale), size[0]))
    resized = np.asarray(Image.fromarray(image_HxWx3).resize(scaled, Image.Resampling.BICUBIC))
    top, left = (resized.shape[0] - size[0]) // 2, (resized.shape[1] - size[1]) // 2
    return resized[top : top + size[0], left : left + size[1]]
