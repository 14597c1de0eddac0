"""A digest tells any change of an array's bits, and nothing of where the array is."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from lidit_jax import digests, sharding

KINDS = ("float32", "bfloat16", "float16", "int32", "uint32", "int8", "uint8", "bool")
digest = jax.jit(digests.digest)


def random(kind, shape=(8, 4, 6), seed=0):
    rng = np.random.default_rng(seed)
    if kind == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return np.frombuffer(rng.bytes(int(np.prod(shape)) * jnp.dtype(kind).itemsize), kind).reshape(
        shape
    )


def told(array):
    return tuple(np.asarray(digest(array)).tolist())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2), (1, 2, 4)])
def test_every_sharding_has_the_same_digest(kind, sizes):
    mesh, array = sharding.make_mesh(sizes), random(kind)
    alone = told(array)
    for spec in [(), ("fsdp",), ("fsdp", "replica"), (("fsdp", "tensor"),), (None, "tensor")]:
        where = NamedSharding(mesh, PartitionSpec(*spec))
        assert told(jax.device_put(array, where)) == alone, spec


def test_of_a_sharded_array_sums_alone_are_exchanged():
    mesh = sharding.make_mesh((1, 4, 2))
    where = NamedSharding(mesh, PartitionSpec("fsdp", "tensor"))
    like = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=where)
    text = digest.lower(like).compile().as_text()
    moved = re.findall(r"u32\[([\d,]*)\]\S* (?:all-|collective-)\S+\(", text)
    assert moved and all(np.prod([int(n) for n in m.split(",") if n]) <= 8 for m in moved), moved
    assert "all-" not in digest.lower(np.zeros((64, 64), np.float32)).compile().as_text()


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_any_flipped_bit_is_seen_by_both_numbers(kind):
    array = random(kind, (3, 5))
    width = array.dtype.itemsize
    flat = array.view(np.uint8).reshape(-1)
    one, two = told(array)
    for place in range(array.nbytes * 8):
        flipped = flat.copy()
        flipped[place // 8] ^= 1 << place % 8
        other = told(flipped.view(array.dtype).reshape(array.shape))
        assert other[0] != one and other[1] != two, (kind, width, place)


def test_a_flipped_bool_is_seen():
    array = random("bool")
    for place in np.ndindex(array.shape):
        flipped = array.copy()
        flipped[place] ^= True
        assert told(flipped) != told(array)


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
def test_swapped_elements_rows_and_shapes_are_seen(kind):
    array, seen = random(kind, (4, 8)), set()
    orders = [array, array[::-1], array[:, ::-1], array.T, array.reshape(8, 4)[:, ::-1]]
    orders += [np.roll(array, by, axis) for by in range(1, 4) for axis in (0, 1)]
    for a in range(8):  # of one row, each pair
        for b in range(a):
            swapped = array.copy()
            swapped[1, [a, b]] = swapped[1, [b, a]]
            orders.append(swapped)
    for each in orders:
        seen.add(told(np.ascontiguousarray(each)))
    different = {np.ascontiguousarray(each).tobytes() for each in orders}
    assert len(seen) == len(different)


def test_zeros_and_nans_are_told_by_their_bits():
    zeros = np.zeros(3, np.float32)
    assert told(zeros) != told(-zeros)
    assert told(zeros) != told(np.zeros(4, np.float32))  # what a place adds is of the place
    nan = np.array([np.nan, 1], np.float32)
    other = nan.copy()
    other.view(np.uint32)[0] ^= 1
    assert told(nan) == told(nan.copy()) and np.isnan(other[0]) and told(nan) != told(other)


def test_a_number_has_a_digest_and_one_of_eight_bytes_is_refused():
    assert told(np.float32(1)) != told(np.float32(2))
    assert told(np.zeros((0, 3), np.float32)) == (0, 0)
    with pytest.raises(TypeError, match="complex64; want elements of 1, 2 or 4 bytes"):
        digests.digest(np.zeros(2, np.complex64))


def test_names_have_hexadecimal_digests():
    one, other = random("float32"), random("bool")
    found = digests.of_each({"one": one, "other": other, "again": one})
    assert found["one"] == found["again"] != found["other"]
    assert all(re.fullmatch("[0-9a-f]{16}", text) for text in found.values())
    assert found["one"] == "".join(f"{number:08x}" for number in told(one))
    assert digests.of_each({}) == {}


SPECS = [
    (),
    ("fsdp",),
    ("fsdp", "replica"),
    (("fsdp", "tensor"),),
    (("tensor", "fsdp"),),
    (None, "tensor"),
]


@pytest.mark.parametrize("sizes", [(1, 8, 1), (2, 2, 2), (1, 2, 4), (1, 1, 1)])
def test_many_arrays_on_a_mesh_have_the_digests_that_each_has_alone(sizes):
    mesh = sharding.make_mesh(sizes, jax.devices()[: np.prod(sizes)])
    arrays = {
        f"{kind} {spec}": (random(kind, seed=n), NamedSharding(mesh, PartitionSpec(*spec)))
        for n, (kind, spec) in enumerate(itertools.product(("float32", "int8"), SPECS))
    }
    arrays["number"] = (np.float32(3), sharding.replicated(mesh))
    alone = {name: "".join(f"{n:08x}" for n in told(a)) for name, (a, _) in arrays.items()}
    there = {name: jax.device_put(a, where) for name, (a, where) in arrays.items()}
    assert digests.of_each(there) == alone
    copies = digests.of_copies(there)
    assert all(set(copies[name]) == {text} for name, text in alone.items())


def test_a_copy_that_differs_is_found_whichever_it_is():
    mesh = sharding.make_mesh((4, 2, 1))
    array, where = random("float32"), NamedSharding(mesh, PartitionSpec("fsdp"))
    for wrong in range(8):
        parts = [
            jax.device_put(array[index] + (n == wrong), device)
            for n, (device, index) in enumerate(where.devices_indices_map(array.shape).items())
        ]
        odd = jax.make_array_from_single_device_arrays(array.shape, where, parts)
        found = digests.of_copies({"odd": odd, "even": jax.device_put(array, where)})
        assert len(set(found["odd"])) == 2 and len(set(found["even"])) == 1, wrong
        assert found["odd"].count(found["even"][0]) == 6
        differ = [k for k, text in enumerate(found["odd"]) if text != found["even"][0]]
        assert differ == [wrong // 2 * 2, wrong // 2 * 2 + 1]  # the two that share the copy
        assert digests.of_each({"odd": odd}) == {"odd": found["odd"][0]}
