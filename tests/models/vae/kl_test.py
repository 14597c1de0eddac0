"""The network maps as diffusers' own does, keeps what must be f32, and is sharded."""

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax import sharding
from lidit_jax.models.vae import folder
from lidit_jax.models.vae.kl import AutoencoderKL, VAEConfig
from tests.models.vae.layouts import (
    LAYOUTS,
    SIZE,
    normal,
    relative_error,
    their_moments,
    their_picture,
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_encodes_and_decodes_as_diffusers_does(layout, saved):
    reference = diffusers.AutoencoderKL.from_pretrained(saved(layout))
    model = folder.load(saved(layout))
    x_BxHxWx3 = normal(2, *SIZE, 3).clip(-1, 1)
    mean, logvar = their_moments(reference, x_BxHxWx3)
    our_mean, our_logvar = jax.jit(AutoencoderKL.encode)(model, x_BxHxWx3)
    z = normal(*mean.shape)
    picture = jax.jit(AutoencoderKL.decode)(model, z)
    assert relative_error(our_mean, mean) <= 1e-4
    assert relative_error(our_logvar, logvar) <= 1e-4
    assert relative_error(picture, their_picture(reference, z)) <= 1e-4


def test_the_log_variance_is_clipped(saved):
    model = folder.load(saved("plain"))
    model.quant_conv.bias[...] = jnp.array([0, 0, 0, 0, 100, -100, 0, 0], jnp.float32)
    _, logvar = jax.jit(AutoencoderKL.encode)(model, normal(2, *SIZE, 3))
    np.testing.assert_array_equal(logvar[..., 0], 20)
    np.testing.assert_array_equal(logvar[..., 1], -30)


def test_norms_and_softmax_are_f32_and_convolutions_are_not():
    config = VAEConfig(block_out_channels=(16, 32), norm_num_groups=8, dtype="bfloat16")
    model = nnx.eval_shape(lambda: AutoencoderKL(config, rngs=nnx.Rngs(0)))
    picture = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
    mean, logvar = jax.eval_shape(AutoencoderKL.encode, model, picture)
    assert mean.dtype == logvar.dtype == jnp.float32
    program = str(jax.make_jaxpr(AutoencoderKL.encode)(model, picture)).splitlines()
    for operation, dtype in {
        " conv_general_dilated": "bf16",
        " exp ": "f32",
        " rsqrt ": "f32",
    }.items():
        lines = [line for line in program if operation in line]
        assert lines and all(f":{dtype}[" in line for line in lines), operation


def test_parameters_of_the_papers_size_are_sharded():
    params = nnx.eval_shape(
        lambda: nnx.state(AutoencoderKL(VAEConfig(), rngs=nnx.Rngs(0)), nnx.Param)
    )
    shardings = sharding.param_shardings(sharding.make_mesh((1, 8, 1)), params)
    sizes = jax.tree.map(lambda p, s: (p.size, s.shard_shape(p.shape)), params, shardings)
    pairs = jax.tree.leaves(sizes, is_leaf=lambda v: isinstance(v, tuple))
    whole, held = sum(n for n, _ in pairs), sum(np.prod(shape) for _, shape in pairs)
    assert whole == 83_819_683
    assert held < whole / 7.5
