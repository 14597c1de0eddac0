"""Each patch is judged by its seventy pixels, each picture alone; content sides have no loss."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lidit_jax import sharding
from lidit_jax.models.vae import discriminator
from tests.models.vae.layouts import NoNorm, normal


def make_discriminator(width=16):
    return discriminator.PatchDiscriminator(width, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_a_picture_is_judged_alone():
    critic, x = make_discriminator(), normal(2, 32, 40, 3)
    judge = jax.jit(critic.__call__)
    judged, other = judge(x), judge(np.stack([x[0], 5 * x[1]]))
    assert judged.shape == (2, 2, 3) and judged.dtype == jnp.float32
    np.testing.assert_array_equal(judged[0], other[0])
    assert np.abs(judged[1] - other[1]).max() > 0


def test_a_logit_sees_seventy_pixels():
    critic = make_discriminator()
    critic.norms = nnx.List([NoNorm() for _ in critic.norms])
    x = jnp.ones((1, 96, 96, 3))
    seen = jax.jit(jax.grad(lambda x: critic(x)[0, 5, 5]))(x)[0].any(-1)
    assert (seen.any(0).sum(), seen.any(1).sum()) == (70, 70)


def test_discriminators_parameters_are_sharded():
    params = nnx.eval_shape(lambda: nnx.state(make_discriminator(64), nnx.Param))
    shardings = sharding.param_shardings(sharding.make_mesh((1, 8, 1)), params)
    assert "fsdp" in shardings["convs"][0]["kernel"].get_value().spec


def test_adversarial_losses_rest_where_each_side_is_content():
    real, fake = jnp.full((2, 3, 3), 1.5), jnp.full((2, 3, 3), -2.0)
    np.testing.assert_array_equal(discriminator.discriminator_loss(real, fake), 0)
    np.testing.assert_array_equal(discriminator.discriminator_loss(fake, real), 0.5 * (3 + 2.5))
    np.testing.assert_array_equal(discriminator.generator_loss(fake), 2)
