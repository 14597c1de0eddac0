"""Generators of the tiny run on any mesh, with weights that make the prompt matter."""

import zlib

import jax
import numpy as np
import pytest
from flax import nnx

from lidit_jax import sharding
from lidit_jax.generation import Generator, sample_config


class Raw:
    """Stands for a codec: what is drawn, before it becomes a picture."""

    downsample, channels = 1, 3

    def decode(self, latents):
        return np.asarray(latents)


@pytest.fixture(scope="session")
def make_generator(workdir):
    """Returns a generator on a mesh of these sizes, which has shaken weights: a run of four steps knows little.

    alone: its LLM reads each text by itself, else it rounds otherwise in other company.
    """

    def make(sizes=(1, 1, 1), batch_size=4, raw=False, alone=False, guidance=3.0, negative=""):
        devices = jax.devices()[: int(np.prod(sizes))]
        sample = sample_config(workdir, guidance=guidance, batch_size=batch_size)
        mesh = sharding.make_mesh(sizes, devices)
        generator = Generator(workdir, sample, mesh=mesh, negative_prompt=negative)
        generator.ema = nnx.from_flat_state(
            [
                (path, v.replace(_shaken(path, v[...])))
                for path, v in nnx.to_flat_state(generator.ema)
            ]
        )
        if raw:
            generator.codec = Raw()
        if alone:
            read = generator._readers.read
            generator._readers.read = lambda texts: (next(read([text])) for text in texts)
        return generator

    return make


def _shaken(path, array):
    noise = np.random.default_rng(zlib.crc32(str(path).encode())).normal(size=array.shape)
    shaken = (np.asarray(array) + 0.1 * noise).astype(array.dtype)
    return jax.device_put(shaken, array.sharding)
