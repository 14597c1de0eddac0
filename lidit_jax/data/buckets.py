"""Aspect-ratio bins: the training sizes, how a picture is assigned to one, and the resize to it.

All pictures of a batch have one size. Grouping by aspect ratio follows RAPHAEL (arXiv 2305.18295),
as LI-DiT does.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from PIL import Image

from lidit_jax import errors

Size = tuple[int, int]  # height, width in pixels

# ASPECT_RATIO_1024 of PixArt-alpha (arXiv 2310.00426, Apache-2.0), in units of 64 pixels: the
# widths for each height. PixArt's tables for 512 and 256 are this one divided by 2 and 4.
_PIXART_UNIT = 64
_PIXART_WIDTHS = {
    8: (32, 31, 30, 29), 9: (28, 27, 26), 10: (25, 24), 11: (23, 22, 21), 12: (21, 20),
    13: (19, 18), 14: (18, 17), 15: (17, 16), 16: (16, 15), 17: (15, 14), 18: (14, 13), 19: (13,),
    20: (12,), 21: (12,), 22: (11,), 23: (11,), 24: (10,), 25: (10,), 26: (9,), 27: (9,), 28: (9,),
    29: (8,), 30: (8,), 31: (8,), 32: (8,),
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Bins:
    """The sizes of a data set, sorted by height / width, and the rule that assigns a picture.

    name: a key of `KINDS`.
    """

    name: str
    sizes: tuple[Size, ...]

    def assign(self, size: Size) -> int:
        """Returns the index of the bin nearest to `size`, by the distance of this kind of bins."""
        above = bisect.bisect(self._ratios, size[0] / size[1])
        # Every distance grows with the difference of ratios, so the nearest bin is a neighbour.
        around = range(max(above - 1, 0), min(above + 1, len(self.sizes)))
        distance = KINDS[self.name].distance
        return min(around, key=lambda i: distance(size, self.sizes[i]))

    def subset(self, sizes: Iterable[Size]) -> "Bins":
        """Returns the bins whose size is in `sizes`, with the same rule."""
        kept = {tuple(size) for size in sizes}
        return dataclasses.replace(self, sizes=tuple(s for s in self.sizes if s in kept))

    @functools.cached_property
    def _ratios(self) -> list[float]:
        return [height / width for height, width in self.sizes]


def make_bins(name: str, size: Size, step: int = 0) -> Bins:
    """Returns the bins of kind `name` for a training stage of `size`.

    square: one bin, `size` itself.
    grid33: all sizes of about the square's area, in steps of `step` pixels; 0 = a sixteenth of its
      side, which gives 33 bins.
    pixart40: PixArt-alpha's table for 256, 512 or 1024.
    Raises InputError for an unknown name, or a size or step for which the kind has no bins.
    """
    if name not in KINDS:
        raise errors.unknown_name("bins", name, KINDS)
    errors.check_range("the step of the bins", step, 0)
    if step and name != "grid33":
        raise errors.InputError(f"{name} bins have no step, got {step}; use 0, or grid33")
    sizes = KINDS[name].make(tuple(size), step)
    return Bins(name, tuple(sorted(sizes, key=lambda s: s[0] / s[1])))


def merge_small(counts: Sequence[int], least: int) -> tuple[int, ...]:
    """Returns the indices of the bins to keep: with `least` pictures or more, else the fullest."""
    stay = tuple(i for i, count in enumerate(counts) if count >= least)
    return stay or (max(range(len(counts)), key=counts.__getitem__),)


def fit(image_HxWx3: np.ndarray, size: Size) -> np.ndarray:
    """Returns the uint8 image scaled to cover `size` (bicubic, anti-aliased), centre-cropped."""
    height, width = image_HxWx3.shape[:2]
    if (height, width) == tuple(size):
        return image_HxWx3
    scale = max(size[0] / height, size[1] / width)
    tall, wide = max(round(height * scale), size[0]), max(round(width * scale), size[1])
    top, left = (tall - size[0]) // 2, (wide - size[1]) // 2
    # Scale only the part that stays: scaling all of a very thin picture would take gigabytes.
    kept = (left, top, left + size[1], top + size[0])
    per_pixel = (width / wide, height / tall) * 2
    box = tuple(edge * natural for edge, natural in zip(kept, per_pixel))
    image = Image.fromarray(image_HxWx3)
    return np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC, box=box))


def _one(size: Size, step: int) -> set[Size]:
    return {size}


def _grid(size: Size, step: int) -> set[Size]:
    """For each height in steps, the largest width within the square's area; and the transposes."""
    side, unit = _square_side("grid33", size), step or 16
    if side % unit:
        below, above = side // unit * unit, -(-side // unit) * unit
        works = " or ".join(f"{s}x{s}" for s in (below, above) if s)
        raise errors.InputError(
            f"grid33 bins of {side}x{side} need a side divisible by {unit}; use {works}"
        )
    step = step or side // 16
    n = side // step
    tall = [(k, n * n // k) for k in range(1, 2 * n + 1)]
    fair = [(h, w) for h, w in tall if w <= 4 * h and h <= 4 * w]
    return {(h * step, w * step) for h, w in fair} | {(w * step, h * step) for h, w in fair}


def _pixart(size: Size, step: int) -> set[Size]:
    side = _square_side("pixart40", size)
    if side not in (256, 512, 1024):
        raise errors.InputError(
            f"pixart40 bins exist for 256, 512 and 1024, got {side}; use one of those, or grid33"
        )
    unit = _PIXART_UNIT * side // 1024
    return {(h * unit, w * unit) for h, widths in _PIXART_WIDTHS.items() for w in widths}


def _square_side(name: str, size: Size) -> int:
    height, width = size
    if height != width:
        raise errors.InputError(
            f"{name} bins need a square size, got {height}x{width}; "
            f"use {height}x{height} or {width}x{width}, or square bins for one size"
        )
    return height


def _log_distance(size: Size, bin: Size) -> tuple[float, int]:
    """|log(h / w) - log(bin's h / w)|, symmetric in tall and wide; ties go to the larger area."""
    return round(abs(math.log(size[0] * bin[1] / (size[1] * bin[0]))), 9), -bin[0] * bin[1]


def _key_distance(size: Size, bin: Size) -> float:
    """|h / w - key|, as in PixArt-alpha: a bin's key is its h / w, rounded to hundredths."""
    return abs(round(bin[0] / bin[1], 2) - size[0] / size[1])


@dataclasses.dataclass(frozen=True)
class Kind:
    """How a kind of bins is made from (size, step), and the distance of a picture from a bin."""

    make: Callable[[Size, int], set[Size]]
    distance: Callable[[Size, Size], float | tuple[float, int]]


KINDS = {
    "square": Kind(_one, _log_distance),
    "grid33": Kind(_grid, _log_distance),
    "pixart40": Kind(_pixart, _key_distance),
}
