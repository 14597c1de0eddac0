"""Checksums of arrays: a few bits that show whether any bit of an array has changed.

A digest is computed where the array is, in one pass, and does not depend on the sharding.
It detects damage. It is not a cryptographic hash: collisions can be made on purpose.
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

# Odd numbers spread a one-bit change to the bits above it; the shifts bring it back down.
_ORDER = np.array([0x9E3779B1, 0x27D4EB2F], np.uint32)
_SPREAD = np.array([0x85EBCA6B, 0xC2B2AE35, 0x2C1B3C6D], np.uint32)
_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}  # by bytes of an element


def digest(array: jax.Array) -> jax.Array:
    """Returns a checksum, uint32 [2], of an array's bits; elements are 1, 2 or 4 bytes, or bools.

    If a single element changes, in any of its bits, both numbers are certain to change: each term
    of the sums is, at its position, a bijection of the element's bits. Any other change, including
    a reordering, is missed with probability 2^-64. The sums wrap around, so the order of summation
    does not matter and every mesh gives the same digest. Call it in a jitted program; for a sharded
    array, only the sums of shards are exchanged. Raises TypeError for elements of another size.
    """
    return _sums(array, _place(array.shape, array.shape))


def of_each(arrays: Mapping[str, jax.Array]) -> dict[str, str]:
    """Returns the digest of every array, by name, as 16 hexadecimal digits.

    Each array is read where it is, all on one mesh or on one device; only digests come to the host.
    If several processes share the arrays, all of them must call this. For a replicated array, the
    digest is of the copy on this process's first device.
    """
    return {name: texts[0] for name, texts in of_copies(arrays).items()}


def of_copies(arrays: Mapping[str, jax.Array]) -> dict[str, list[str]]:
    """Like `of_each`, but returns the digest of every copy that this process holds a shard of.

    There is one per local device; they differ only where the copies do, so processes may get
    different results.
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
    """Returns one digest, uint32 [2], of a tree of arrays; call it in a jitted program."""
    return digest(jnp.stack([digest(a) for a in jax.tree.leaves(tree)]))


def in_hex(pair: np.ndarray) -> str:
    """Returns a digest as 16 hexadecimal digits."""
    return "".join(f"{part:08x}" for part in pair)


def _groups(arrays: Mapping[str, jax.Array], specs: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Returns the arrays' names in groups, one program call per group.

    A model has many arrays of few kinds. Kinds with equally many arrays share one program, which is
    called once per array of a kind; one program per kind, or a single program for all arrays, would
    take several times as long to compile.
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
    """Returns a program: arrays sharded by `specs` -> sums of their shards [devices, arrays, 2]."""

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
    """Returns a program: shard sums of several groups -> whole-array sums of each device's copies.

    The result is [devices, arrays, 2]. Arrays that are sharded alike share one exchange of sums.
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
    """Returns a program: each device calls `here` on its shards; results are stacked by device."""
    devices = PartitionSpec(mesh.axis_names)
    return jax.jit(
        jax.shard_map(here, mesh=mesh, in_specs=where, out_specs=devices, check_vma=False)
    )


def _axes(spec: PartitionSpec, rank: int) -> list[tuple[str, ...]]:
    """Returns the mesh axes that each dimension is sharded over."""
    entries = (*spec, *[None] * (rank - len(spec)))
    return [() if e is None else (e,) if isinstance(e, str) else tuple(e) for e in entries]


def _sums(array: jax.Array, place: jax.Array) -> jax.Array:
    """Returns the two sums over elements, each mixed with its position."""
    one = _bits(array) ^ place * _ORDER[0]
    one = (one ^ one >> 16) * _SPREAD[0]
    one = (one ^ one >> 13) * _SPREAD[1]
    one = one ^ one >> 16
    two = (one ^ place * _ORDER[1]) * _SPREAD[2]
    two = two ^ two >> 15

    def add(a, b):
        return a[0] + b[0], a[1] + b[1]

    # One reduction for both: if two reductions read `one`, XLA computes and writes it separately.
    zero = np.uint32(0)
    return jnp.stack(lax.reduce((one, two), (zero, zero), add, tuple(range(array.ndim))))


def _bits(array: jax.Array) -> jax.Array:
    """Returns the bits of each element as uint32; smaller elements get leading zeros."""
    array = array.astype(jnp.uint8) if array.dtype == jnp.bool_ else array
    size = array.dtype.itemsize
    if size not in _UNSIGNED:
        raise TypeError(f"got an array of {array.dtype}; want elements of 1, 2 or 4 bytes")
    return lax.bitcast_convert_type(array, _UNSIGNED[size]).astype(jnp.uint32)


def _place(part: Sequence[int], whole: Sequence[int], corner: Sequence[Any] = ()) -> jax.Array:
    """Returns the row-major positions of a shard's elements in the whole array, as wrapping uint32.

    part, whole: shapes; corner: the indices of the shard's first element, zeros if not given. Built
    from one iota per dimension, so that every device makes its own.
    """
    place, stride = jnp.zeros(part, jnp.uint32), 1
    for axis in reversed(range(len(part))):
        along = lax.broadcasted_iota(jnp.uint32, part, axis)
        if corner:
            along = along + jnp.asarray(corner[axis]).astype(jnp.uint32)
        place = place + along * np.uint32(stride % 2**32)
        stride *= whole[axis]
    return place
