"""Attention layers: QK-norm around `attend`, whatever the tokens are read from."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lidit_jax.models.attention import CrossAttention, SelfAttention


def attention(kind, heads=4):
    return kind(32, heads, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_self_attention_is_jaxs_own_of_normalised_queries_and_keys():
    layer = attention(SelfAttention)
    x = jax.random.normal(jax.random.key(0), (2, 6, 32))
    q, k, v = (a.swapaxes(1, 2) for a in layer.qkv(x))
    norms = layer.mixer.q_norm, layer.mixer.k_norm
    mixed = jax.nn.dot_product_attention(norms[0](q), norms[1](k), v)  # divides by sqrt(K)
    np.testing.assert_allclose(layer(x), layer.mixer.out(mixed.reshape(2, 6, 32)), atol=1e-6)


def test_tokens_from_a_start_read_what_they_read_among_all():
    layer = attention(SelfAttention)
    x = jax.random.normal(jax.random.key(0), (2, 6, 32))
    np.testing.assert_allclose(layer(x, start=2), layer(x)[:, 2:], atol=1e-6)


def test_a_memory_of_the_same_tokens_is_self_attention():
    own, cross = attention(SelfAttention), attention(CrossAttention)
    for part, places in (("q", slice(0, 1)), ("kv", slice(1, 3))):
        getattr(cross, part).kernel[...] = own.qkv.kernel[:, :, places]
    cross.mixer = own.mixer
    x = jax.random.normal(jax.random.key(0), (2, 6, 32))
    np.testing.assert_allclose(cross(x, x, None), own(x), atol=1e-6)


def test_qk_norm_keeps_logits_bounded_whatever_the_input_scale():
    """So attention reads the same pattern from inputs 10,000 times as large."""
    layer = attention(SelfAttention)
    x = jax.random.normal(jax.random.key(0), (1, 6, 32))
    small, large = layer(x), layer(1e4 * x)
    np.testing.assert_allclose(large, 1e4 * small, rtol=1e-3, atol=1e-3)
