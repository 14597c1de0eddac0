"""How near is a decoded picture to the one that was encoded?"""

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.pictures import Picture


def psnr(pictures: list[Picture]) -> dict[str, float]:
    """Returns {"psnr", "psnr_worst"}: peak signal-to-noise ratio in dB, mean and least over the pictures.

    10 log10(255^2 / mean squared error) of 8-bit RGB. A picture's original is the file of the same
    name in the folder `originals` beside it.
    Raises InputError if an original is missing or of another size.
    """
    found = []
    for picture in pictures:
        original = Picture(picture.path.parent / "originals" / picture.path.name, "", 0).load()
        decoded = picture.load()
        if original.shape != decoded.shape:
            raise InputError(
                f"{picture.path} is {decoded.shape[:2]}, its original {original.shape[:2]}"
            )
        error = np.square(original.astype(np.float64) - decoded).mean()
        found.append(10 * np.log10(255**2 / max(error, 1e-10)))
    return {"psnr": float(np.mean(found)), "psnr_worst": float(np.min(found))}
