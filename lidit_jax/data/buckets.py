"""The size at which an image is trained, and the resize and crop that take it there."""

import numpy as np
from PIL import Image

Size = tuple[int, int]  # height, width in pixels


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
