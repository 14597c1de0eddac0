"""How close a decoded picture is to the one that was encoded."""

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.pictures import Picture

_REMEDY = "want a folder written by lidit_jax.reconstruct"


def psnr(pictures: list[Picture]) -> dict[str, float]:
    """Returns {"psnr", "psnr_worst"}: peak signal-to-noise ratio in dB, mean and minimum.

    10 log10(255^2 / mean squared error) in 8-bit RGB. A picture's original is the file of the same
    name in the folder `originals` next to it.
    Raises InputError if an original is missing or of another size.
    """
    found = []
    for picture in pictures:
        original, decoded = _original(picture).load(), picture.load()
        if original.shape != decoded.shape:
            raise InputError(
                f"{picture.path} has size {decoded.shape[:2]}, "
                f"its original {original.shape[:2]}; {_REMEDY}"
            )
        error = np.square(original.astype(np.float64) - decoded).mean()
        found.append(10 * np.log10(255**2 / max(error, 1e-10)))
    return {"psnr": float(np.mean(found)), "psnr_worst": float(np.min(found))}


def _original(picture: Picture) -> Picture:
    path = picture.path.parent / "originals" / picture.path.name
    if not path.is_file():
        raise InputError(f"no original of {picture.path} at {path}; {_REMEDY}")
    return Picture(path, "", None, picture.folder)
