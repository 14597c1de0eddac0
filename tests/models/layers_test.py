"""Layers: what they share with Flax's, and what they add in f32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax.models import layers
from lidit_jax.models.attention import Heads

MANY = 100_000  # tokens, or cells: a sum of as many ones stops at 256 in bf16

MADE = {
    "linear": lambda **build: layers.linear(2, 3, (None, None), **build),
    "conv": lambda **build: layers.Conv(2, 3, (1, 1), **build),
    "heads": lambda **build: Heads(2, 1, 3, **build),
}


@pytest.mark.parametrize("kind", MADE)
def test_a_bias_learns_from_every_token_in_bf16(kind):
    model = MADE[kind](dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    x = jnp.ones((1, MANY, 1, 2) if kind == "conv" else (1, MANY, 2), jnp.bfloat16)
    slope = jnp.linspace(0.5, 1.5, MANY).astype(jnp.bfloat16)

    def loss(model):
        (y,) = model(x, slice(0, 1)) if kind == "heads" else (model(x),)
        assert y.dtype == jnp.bfloat16
        return (y.reshape(MANY, -1)[:, 0].astype(jnp.float32) * slope).sum()

    gradient = jax.jit(nnx.grad(loss))(model).bias[...].ravel()
    assert gradient[0] == pytest.approx(MANY, rel=1e-3) and not gradient[1:].any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (layers.Linear, nnx.Linear, (3, 5, 4)),
        (lambda *a, **k: layers.Conv(*a, (3, 3), **k), lambda *a, **k: nnx.Conv(*a, (3, 3), **k), (3, 5, 7, 4)),
    ],
)  # fmt: skip
def test_they_compute_what_flax_does(ours, theirs, shape, dtype):
    x = jax.random.normal(jax.random.key(1), shape)
    init = nnx.initializers.normal(1.0)
    made = (of(4, 6, dtype=dtype, bias_init=init, rngs=nnx.Rngs(0)) for of in (ours, theirs))
    one, other = (np.asarray(model(x), np.float32) for model in made)
    limit = 1e-6 if dtype == jnp.float32 else 2**-7
    np.testing.assert_allclose(one, other, rtol=limit, atol=limit)


def test_modulation_is_of_a_norm_of_mean_0_and_variance_1():
    x, zero = 5 + 3 * jax.random.normal(jax.random.key(0), (2, 7, 64)), jnp.zeros((2, 1, 64))
    y = layers.modulate(x, zero, zero)
    np.testing.assert_allclose(y.mean(-1), 0, atol=1e-5)
    np.testing.assert_allclose(y.var(-1), 1, atol=1e-4)
    np.testing.assert_allclose(layers.modulate(x, zero + 1, zero + 2), 2 * y + 2, atol=1e-5)


def test_time_is_embedded_as_in_dit():
    t_B = np.array([0.0, 0.25, 1.0])
    angle_BxF = 1000 * t_B[:, None] * 10_000.0 ** (-np.arange(128) / 128)
    wanted = np.concatenate([np.cos(angle_BxF), np.sin(angle_BxF)], 1)
    np.testing.assert_allclose(layers.sincos(jnp.asarray(t_B), 256), wanted, atol=2e-4)
