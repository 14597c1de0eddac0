"""Attention is softmax(q k^T) v, its gradient too, and nothing of its logits' size outlives the forward pass."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax.errors import InputError
from lidit_jax.models.attention import CrossAttention, SelfAttention, attend

B, T, S, N, K = 2, 5, 7, 3, 8


def arrays(dtype=jnp.float32, seed=0):
    q, k, v, g = jax.random.split(jax.random.key(seed), 4)
    draw = jax.random.normal
    return (
        draw(q, (B, T, N, K), dtype),
        draw(k, (B, S, N, K), dtype),
        draw(v, (B, S, N, K), dtype),
    ), draw(g, (B, T, N, K), dtype)


MASKS = {
    "none": None,
    "of tokens": jnp.arange(S)[None, None] < jnp.array([4, 7])[:, None, None],
    "of pairs": jnp.tril(jnp.ones((1, T, S), bool)) | jnp.eye(T, S, dtype=bool)[None],
}


def textbook(q, k, v, mask):
    """The definition, with jax's own softmax and derivative."""
    logits = jnp.einsum("btnk,bsnk->bnts", q, k)
    mask = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask[:, None]
    return jnp.einsum("bnts,bsnk->btnk", jax.nn.softmax(logits, -1, where=mask), v)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_it_is_the_definition_and_so_is_its_gradient(mask):
    inputs, g = arrays()
    out, back = jax.vjp(lambda *a: attend(*a, mask), *inputs)
    wanted, wanted_back = jax.vjp(lambda *a: textbook(*a, mask), *inputs)
    np.testing.assert_allclose(out, wanted, atol=1e-6)
    for found, exact in zip(back(g), wanted_back(g)):
        np.testing.assert_allclose(found, exact, atol=1e-5)


def test_in_bf16_it_is_near_the_definition_and_keeps_its_dtype():
    inputs, g = arrays(jnp.bfloat16)
    mask = MASKS["of tokens"]
    out, back = jax.vjp(lambda *a: attend(*a, mask), *inputs)
    exact = [a.astype(jnp.float32) for a in inputs]
    wanted, wanted_back = jax.vjp(lambda *a: textbook(*a, mask), *exact)
    pairs = [(out, wanted), *zip(back(g), wanted_back(g.astype(jnp.float32)))]
    for found, right in pairs:
        assert found.dtype == jnp.bfloat16
        assert jnp.linalg.norm(found - right) < 1e-2 * jnp.linalg.norm(right)


def test_huge_logits_neither_overflow_nor_mislead():
    (q, k, v), _ = arrays()
    out = attend(1e4 * q, k, v, None)
    best = jnp.einsum("btnk,bsnk->btns", q, k).argmax(-1)
    chosen = jnp.take_along_axis(v.transpose(0, 2, 1, 3), best.transpose(0, 2, 1)[..., None], 2)
    np.testing.assert_allclose(out, chosen.transpose(0, 2, 1, 3), atol=1e-6)


def test_nothing_of_the_logits_size_is_kept_for_the_gradient():
    many = jnp.ones((1, 64, 1, 4))
    kept = jax.tree.leaves(jax.vjp(lambda *a: attend(*a, None), many, many, many)[1])
    assert kept and max(a.size for a in kept) <= many.size < 64 * 64


def attention(kind, heads=4):
    return kind(32, heads, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_self_attention_is_jaxs_own_of_normalised_queries_and_keys():
    layer = attention(SelfAttention)
    x = jax.random.normal(jax.random.key(0), (2, 6, 32))
    q, k, v = layer.qkv(x)
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


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(InputError, match="width 32 does not divide over 5 heads"):
        attention(SelfAttention, heads=5)
