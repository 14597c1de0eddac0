"""A function of large pictures, from a function of tiles: overlapping tiles, blended linearly.

The memory needed is that of one tile, and one program serves every size.
"""

import dataclasses
import itertools
from collections.abc import Callable
from fractions import Fraction

import numpy as np


@dataclasses.dataclass(frozen=True)
class Window:
    """One tile along one side: where it reads, where it writes, and its share of those outputs."""

    read: slice
    write: slice
    share: np.ndarray


def windows(size: int, tile: int, overlap: int, scale: Fraction) -> list[Window]:
    """Returns the tiles that cover a side of `size` cells;
    at every output cell the shares sum to one.

    Each reads `tile` cells (or `size`, if that is less) and writes `scale` times as many; the last
    is moved back to end where the side ends. Shares rise and fall linearly over `overlap` cells.
    `scale` times any of these must be an integer.
    """
    starts = [*range(0, size - tile, tile - overlap), max(size - tile, 0)]
    length = min(tile, size)
    rise = np.arange(1, int(length * scale) + 1)
    ramp = np.minimum(np.minimum(rise, rise[::-1]), max(int(overlap * scale), 1))
    writes = [slice(int(s * scale), int((s + length) * scale)) for s in starts]
    total = np.zeros(int(size * scale))
    for write in writes:
        total[write] += ramp
    return [
        Window(slice(s, s + length), write, (ramp / total[write]).astype(np.float32))
        for s, write in zip(starts, writes)
    ]


def tiled(
    fn: Callable, x_BxHxWxI, channels: int, *, tile: int, overlap: int, scale: Fraction
) -> np.ndarray:
    """Returns fn(x), f32 [B, H * scale, W * scale, channels], from calls of fn on tiles of x.

    fn maps [B, h, w, I] to [B, h * scale, w * scale, channels]. The result equals fn's own where fn
    is local, and blends the outputs of neighbouring tiles where it is not. `tile` and `overlap` are
    in cells of x.
    """
    B, H, W, _ = x_BxHxWxI.shape
    out = np.zeros((B, int(H * scale), int(W * scale), channels), np.float32)
    rows, columns = (windows(size, tile, overlap, scale) for size in (H, W))
    for row, column in itertools.product(rows, columns):
        part = np.asarray(fn(x_BxHxWxI[:, row.read, column.read]))
        share = row.share[None, :, None, None] * column.share[None, None, :, None]
        out[:, row.write, column.write] += share * part
    return out
