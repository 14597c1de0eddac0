"""Checksums of arrays: a few bits that tell whether any bit of an array is another than it was.

A digest is computed where the array is, in one pass, and is the same however the array is sharded.
It finds damage; it is no cryptographic hash: who wants to can make two arrays of one digest.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Odd numbers that spread a change of one bit over the bits above it; the shifts bring it down again.
_ORDER = np.array([0x9E3779B1, 0x27D4EB2F], np.uint32)
_SPREAD = np.array([0x85EBCA6B, 0xC2B2AE35, 0x2C1B3C6D], np.uint32)
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes of an element


def digest(array: jax.Array) -> jax.Array:
    """Returns a checksum, uint32 [2], of the bits of an array of elements of 1, 2 or 4 bytes, or of bools.

    An element that alone has changed, by whatever bits, surely changes both numbers: what they sum up
    is, at each place, a bijection of the element's bits. Any other change, of order too, is unseen with
    a chance of 2^-64. The sums wrap around, so that no order of summing matters: every mesh gives the
    same. To be called in a jitted program; of a sharded array only the parts' sums are exchanged.
    Raises TypeError for elements of another size.
    """
    place = _place(array.shape)
    one = _bits(array) ^ place * _ORDER[0]
    one = (one ^ one >> 16) * _SPREAD[0]
    one = (one ^ one >> 13) * _SPREAD[1]
    one = one ^ one >> 16
    two = (one ^ place * _ORDER[1]) * _SPREAD[2]
    two = two ^ two >> 15

    def add(a, b):
        return a[0] + b[0], a[1] + b[1]

    # One reduction of both: XLA computes and writes `one` apart where two reductions read it.
    zero = np.uint32(0)
    return jnp.stack(lax.reduce((one, two), (zero, zero), add, tuple(range(array.ndim))))


def of_each(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
    """Returns the digest of every array, by its name, as 16 hexadecimal digits.

    One program reads every array where it is; only digests come to the host. Of several processes that
    share the arrays all must call it, and all get the same.
    """
    if not arrays:
        return {}
    found = np.asarray(jax.device_get(_each(list(arrays.values()))))
    return {name: in_hex(pair) for name, pair in zip(arrays, found)}


def in_hex(pair: np.ndarray) -> str:
    """Returns a digest as 16 hexadecimal digits."""
    return "".join(f"{part:08x}" for part in pair)


def of_all(tree: Any) -> jax.Array:
    """Returns one digest, uint32 [2], of a tree of arrays; to be called in a jitted program."""
    return digest(jnp.stack([digest(a) for a in jax.tree.leaves(tree)]))


@jax.jit
def _each(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([digest(a) for a in arrays])


def _bits(array: jax.Array) -> jax.Array:
    """Returns the bits of each element as uint32, zeros before those of a smaller one."""
    array = array.astype(jnp.uint8) if array.dtype == jnp.bool_ else array
    size = array.dtype.itemsize
    if size not in _UNSIGNED:
        raise TypeError(f"an array of {array.dtype}; want elements of 1, 2 or 4 bytes")
    return lax.bitcast_convert_type(array, _UNSIGNED[size]).astype(jnp.uint32)


def _place(shape: tuple[int, ...]) -> jax.Array:
    """Returns each element's place in row-major order, as uint32 that wraps around.

    Of one iota a dimension, so that every device makes its part of it.
    """
    place, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        along = lax.broadcasted_iota(jnp.uint32, shape, axis)
        place = place + along * np.uint32(stride % 2**32)
        stride *= shape[axis]
    return place
