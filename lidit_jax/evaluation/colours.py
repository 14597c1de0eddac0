"""Perceptual colours."""

import numpy as np


def lab(rgb: np.ndarray) -> np.ndarray:
    """Returns CIELAB (D65) of sRGB in 0..255; equal distances look about equally different."""
    c = rgb / 255
    linear = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    xyz = linear @ np.array(to_xyz).T / (0.9505, 1.0, 1.089)
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def nearest(rgb_Nx3: np.ndarray, palette_Cx3: np.ndarray) -> np.ndarray:
    """Returns the index of the nearest palette colour for each colour, [N]."""
    apart_NxC = np.linalg.norm(lab(rgb_Nx3)[:, None] - lab(palette_Cx3), axis=-1)
    return apart_NxC.argmin(axis=1)
