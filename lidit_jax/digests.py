"""Checksums of arrays: a few bits that tell whether any bit of an array is another than it was.

A digest is computed where the array is, in one pass, and is the same however the array is sharded.
It finds damage; it is no cryptographic hash: who wants to can make two arrays of one digest.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, PartitionSpec

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
    return _sums(array, _place(array.shape, array.shape))


def of_each(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
    """Returns the digest of every array, by its name, as 16 hexadecimal digits.

    Every array is read where it is, all on one mesh or on one device; only digests come to the host.
    Of several processes that share the arrays all must call it. Of an array that devices hold copies
    of, the first one's here.
    """
    return {name: texts[0] for name, texts in of_copies(arrays).items()}


def of_copies(arrays: Mapping[str, jax.Array]) -> dict[str, list[str]]:
    """Returns, as `of_each`, the digests of every copy of each array that this process has a part of.

    One for each of its devices: they differ only where copies do. Processes may so find other things.
    """
    if not arrays:
        return {}
    where = [getattr(a, "sharding", None) for a in arrays.values()]
    specs = {name: getattr(s, "spec", None) for name, s in zip(arrays, where)}
    meshes = {getattr(s, "mesh", None) for s in where}
    groups = _groups(arrays, specs)
    names = [name for group in groups for name in group]
    if len(meshes) == 1 and isinstance(mesh := meshes.pop(), Mesh) and mesh.size > 1:
        parts = [
            _of_parts(mesh, tuple(specs[name] for name in group))([arrays[name] for name in group])
            for group in groups
        ]
        whole = _together(mesh, tuple(specs[name] for name in names))(parts)
        held = sorted(whole.addressable_shards, key=lambda shard: shard.index[0].start)
        copies_DxNx2 = np.concatenate([np.asarray(shard.data) for shard in held])
    else:
        wholes = [_of_wholes([arrays[name] for name in group]) for group in groups]
        copies_DxNx2 = np.concatenate(jax.device_get(wholes))[None]
    found = {name: list(map(in_hex, copies_DxNx2[:, n])) for n, name in enumerate(names)}
    return {name: found[name] for name in arrays}


def of_all(tree: Any) -> jax.Array:
    """Returns one digest, uint32 [2], of a tree of arrays; to be called in a jitted program."""
    return digest(jnp.stack([digest(a) for a in jax.tree.leaves(tree)]))


def in_hex(pair: np.ndarray) -> str:
    """Returns a digest as 16 hexadecimal digits."""
    return "".join(f"{part:08x}" for part in pair)


def _groups(arrays: Mapping[str, jax.Array], specs: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the arrays' names, in groups for one call each of a program.

    A model has many arrays of few kinds, and one program for each kind, or one for all arrays, takes
    several times as long to compile as one for all kinds that as many arrays are of, called as often.
    """
    of_kind, of_count = {}, {}
    for name, a in arrays.items():
        of_kind.setdefault((a.shape, a.dtype, specs[name]), []).append(name)
    for names in of_kind.values():
        of_count.setdefault(len(names), []).append(names)
    return [group for kinds in of_count.values() for group in zip(*kinds)]


@jax.jit
def _of_wholes(arrays: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([digest(a) for a in arrays])


@functools.cache
def _of_parts(mesh: Mesh, specs: tuple[PartitionSpec, ...]):
    """Returns a program from arrays, divided so over a mesh, to the sums [devices, arrays, 2] of their parts."""

    def sums(part, spec):
        axes = _axes(spec, part.ndim)
        counts = [math.prod(mesh.shape[name] for name in along) for along in axes]
        whole = [size * count for size, count in zip(part.shape, counts)]
        corner = [lax.axis_index(along) * n if along else 0 for along, n in zip(axes, part.shape)]
        return _sums(part, _place(part.shape, whole, corner))

    def here(parts):
        return jnp.stack([sums(part, spec) for part, spec in zip(parts, specs)])[None]

    return _on_every_device(here, mesh, (list(specs),))


@functools.cache
def _together(mesh: Mesh, specs: tuple[PartitionSpec, ...]):
    """Returns a program from such sums of several groups to what each device's copies of all sum up to.

    The result is [devices, arrays, 2]. Sums of arrays that are divided alike are exchanged at once.
    """
    alike = {}
    for n, spec in enumerate(specs):
        alike.setdefault(tuple(sorted(sum(_axes(spec, len(spec)), ()))), []).append(n)

    def here(sums):
        sums_Nx2 = jnp.concatenate([sums_1xNx2[0] for sums_1xNx2 in sums])
        for axes, numbers in alike.items():
            if axes:
                numbers = np.array(numbers)
                sums_Nx2 = sums_Nx2.at[numbers].set(lax.psum(sums_Nx2[numbers], axes))
        return sums_Nx2[None]

    return _on_every_device(here, mesh, PartitionSpec(mesh.axis_names))


def _on_every_device(here: Callable, mesh: Mesh, where: Any):
    """Returns a program in which each device calls `here` with its parts, to its results one after another."""
    devices = PartitionSpec(mesh.axis_names)
    return jax.jit(
        jax.shard_map(here, mesh=mesh, in_specs=where, out_specs=devices, check_vma=False)
    )


def _axes(spec: PartitionSpec, rank: int) -> list[tuple[str, ...]]:
    """Returns the mesh axes that each dimension is divided over."""
    entries = (*spec, *[None] * (rank - len(spec)))
    return [() if e is None else (e,) if isinstance(e, str) else tuple(e) for e in entries]


def _sums(array: jax.Array, place: jax.Array) -> jax.Array:
    """Returns the two sums over elements, each mixed with its place."""
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


def _bits(array: jax.Array) -> jax.Array:
    """Returns the bits of each element as uint32, zeros before those of a smaller one."""
    array = array.astype(jnp.uint8) if array.dtype == jnp.bool_ else array
    size = array.dtype.itemsize
    if size not in _UNSIGNED:
        raise TypeError(f"an array of {array.dtype}; want elements of 1, 2 or 4 bytes")
    return lax.bitcast_convert_type(array, _UNSIGNED[size]).astype(jnp.uint32)


def _place(part: Sequence[int], whole: Sequence[int], corner: Sequence[Any] = ()) -> jax.Array:
    """Returns the places of a part's elements in the whole array, row-major, as uint32 that wraps around.

    part, whole: shapes; corner: the part's first element's indices, zeros if not given. Of one iota a
    dimension, so that every device makes its own.
    """
    place, stride = jnp.zeros(part, jnp.uint32), 1
    for axis in reversed(range(len(part))):
        along = lax.broadcasted_iota(jnp.uint32, part, axis)
        if corner:
            along = along + jnp.asarray(corner[axis]).astype(jnp.uint32)
        place = place + along * np.uint32(stride % 2**32)
        stride *= whole[axis]
    return place
