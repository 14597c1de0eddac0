"""Randomness as a function of (seed, name, step, sample index); no key is threaded through a loop.

A draw depends on those four numbers alone, so a run on another mesh, with other hosts, or
resumed from a checkpoint draws the same noise, and image k of a request never depends on
how many images were asked for.
"""

import zlib

import jax
import jax.numpy as jnp


def key(seed: int, name: str, step: int | jax.Array = 0) -> jax.Array:
    """Returns the key of the random stream `name` at `step`.

    Args:
      seed: the run's seed.
      name: what the draw is for, e.g. "noise"; two purposes never share a name.
      step: training or sampling step; may be traced.
    """
    stream = jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))
    return jax.random.fold_in(stream, step)


def named(base: jax.Array, name: str) -> jax.Array:
    """Returns the sub-stream `name` of a key: `named(k, "time")` and `named(k, "noise")` are
    independent.
    """
    return jax.random.fold_in(base, zlib.crc32(name.encode()))


def named_each(keys_B: jax.Array, name: str) -> jax.Array:
    """Returns the sub-stream `name` of every sample's key: keys of shape [B]."""
    return jax.vmap(lambda k: named(k, name))(keys_B)


def per_sample(base: jax.Array, index_B: jax.Array) -> jax.Array:
    """Returns one key per sample, from the sample's global index: keys of shape [B]."""
    return jax.vmap(lambda i: jax.random.fold_in(base, i))(index_B)


def normal(keys_B: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns standard normal f32 noise [B, *shape], row k drawn from key k alone."""
    return jax.vmap(lambda k: jax.random.normal(k, shape, jnp.float32))(keys_B)


def uniform(keys_B: jax.Array) -> jax.Array:
    """Returns uniform f32 numbers in [0, 1), shape [B], row k drawn from key k alone."""
    return jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32))(keys_B)
