"""Collectives are counted as often as they run, and their bytes are those of the larger side."""

import functools

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lidit_jax import sharding
from lidit_jax.benchmarking import hlo

KB = 4 * 256  # bytes of f32 [256]


def compiled(*lengths):
    """The text of a program for 8 devices: gather 8 x [256] once, and in each of a x b rounds add [256] up and pass it on.

    lengths: a and b, given as the program is compiled; none: as it runs.
    """
    mesh = sharding.make_mesh((1, 8, 1))
    ring = [(i, (i + 1) % 8) for i in range(8)]

    @functools.partial(
        jax.shard_map,
        mesh=mesh,
        in_specs=(P("fsdp"), P()),
        out_specs=(P(), P("fsdp")),
        check_vma=False,
    )
    def run(x_256, lengths_2):
        whole = jax.lax.all_gather(x_256, "fsdp", tiled=True)
        a, b = lengths or lengths_2

        def inner(_, x):
            x = jnp.sin(jax.lax.psum(jnp.cos(x), "fsdp"))
            return jax.lax.ppermute(x, "fsdp", ring)

        def outer(_, x):
            return jax.lax.fori_loop(0, b, inner, x)

        return whole, jax.lax.fori_loop(0, a, outer, x_256)

    return jax.jit(run).lower(jnp.zeros(8 * 256), jnp.array([5, 3])).compile().as_text()


def test_a_program_made_by_hand_is_counted_exactly():
    found = hlo.collectives(compiled(5, 3))
    assert found.by_kind == {
        ("all-gather", "f32"): hlo.Count(1, 8 * KB),
        ("all-reduce", "f32"): hlo.Count(15, 15 * KB),
        ("collective-permute", "f32"): hlo.Count(15, 15 * KB),
    }
    assert found.unknown_loops == 0


def test_a_loop_whose_length_the_program_does_not_say_counts_once_and_is_told():
    counted = hlo.collectives(compiled())
    assert counted.by_kind == {
        ("all-gather", "f32"): hlo.Count(1, 8 * KB),
        ("all-reduce", "f32"): hlo.Count(1, KB),
        ("collective-permute", "f32"): hlo.Count(1, KB),
    }
    assert counted.unknown_loops == 2
