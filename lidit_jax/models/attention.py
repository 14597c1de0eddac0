"""Multi-head attention with QK-RMSNorm (section 3.2; arXiv 2010.04245).

One matrix product makes all that is read from the same tokens; `attend` mixes, by platform.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lidit_jax import errors
from lidit_jax.models.layers import linear, rms_norm


class Heads(nnx.Module):
    """Tokens -> `parts` arrays for every head: queries, or keys and values, or all three.

    The kernel is [D, N, parts, K]: heads first, so that what a device holds of a head stays together.
    """

    def __init__(self, width, heads, parts, *, dtype, rngs):
        if width % heads:
            raise errors.InputError(f"width {width} does not divide over {heads} heads")
        self.dtype = dtype
        shape = (heads, parts, width // heads)
        # Fans of one D x D matrix for each part, whatever they are stored in.
        init = jax.nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 3), batch_axis=2
        )
        axes = ("heads", "parts", None)
        self.kernel = nnx.Param(init(rngs.params(), (width, *shape)), axes=("embed", *axes))
        self.bias = nnx.Param(jnp.zeros(shape), axes=axes)

    def __call__(self, x_BxTxD, parts=slice(None)):
        """Returns the chosen parts, each [B, T, N, K]."""
        B, T, D = x_BxTxD.shape
        kernel_DxNxPxK = self.kernel[:, :, parts].astype(self.dtype)
        bias_NxPxK = self.bias[:, parts].astype(self.dtype)
        _, N, P, K = kernel_DxNxPxK.shape
        # As one product of two matrices: more axes to sum over cost the CPU's gradients their speed.
        y = x_BxTxD.reshape(B * T, D) @ kernel_DxNxPxK.reshape(D, N * P * K)
        y_BxTxNxPxK = y.reshape(B, T, N, P, K) + bias_NxPxK[None, None]
        return tuple(y_BxTxNxPxK[:, :, :, p] for p in range(P))


class Mixer(nnx.Module):
    """What self- and cross-attention share: QK-norm, `attend`, and the output matrix.

    q and k are normalised over the head dimension with a learned scale shared by the heads.
    """

    def __init__(self, width, heads, *, dtype, rngs):
        self.dtype = dtype
        self.q_norm = rms_norm(width // heads, rngs=rngs)
        self.k_norm = rms_norm(width // heads, rngs=rngs)
        self.out = linear(width, width, ("heads", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, q_BxTxNxK, k_BxSxNxK, v_BxSxNxK, mask_BxTxS):
        B, T, N, K = q_BxTxNxK.shape
        q_BxTxNxK = (K**-0.5 * self.q_norm(q_BxTxNxK)).astype(self.dtype)
        k_BxSxNxK = self.k_norm(k_BxSxNxK).astype(self.dtype)
        mixed_BxTxNxK = attend(q_BxTxNxK, k_BxSxNxK, v_BxSxNxK, mask_BxTxS)
        return self.out(mixed_BxTxNxK.reshape(B, T, N * K))


class SelfAttention(nnx.Module):
    """Tokens read each other."""

    def __init__(self, width, heads, *, dtype, rngs):
        self.mixer = Mixer(width, heads, dtype=dtype, rngs=rngs)
        self.qkv = Heads(width, heads, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxTxD, mask_BxTxT=None, start=0):
        """Returns [B, T - start, D]: what the tokens from `start` on read.

        The mask is True where a token (second axis) may see another (third); the second may be 1
        (broadcast).
        """
        if start == 0:
            return self.mixer(*self.qkv(x_BxTxD), mask_BxTxT)
        (q,) = self.qkv(x_BxTxD[:, start:], slice(0, 1))
        return self.mixer(q, *self.qkv(x_BxTxD, slice(1, 3)), mask_BxTxT)


class CrossAttention(nnx.Module):
    """Tokens read a memory."""

    def __init__(self, width, heads, *, dtype, rngs):
        self.mixer = Mixer(width, heads, dtype=dtype, rngs=rngs)
        self.q = Heads(width, heads, 1, dtype=dtype, rngs=rngs)
        self.kv = Heads(width, heads, 2, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxTxD, memory_BxSxD, mask_BxTxS):
        """Returns [B, T, D]. The mask is True where query t may see memory token s; T may be 1 (broadcast)."""
        return self.mixer(*self.q(x_BxTxD), *self.kv(memory_BxSxD), mask_BxTxS)


@jax.custom_vjp
def attend(q_BxTxNxK, k_BxSxNxK, v_BxSxNxK, mask_BxTxS):
    """Returns softmax(q k^T) v, [B, T, N, K], in the dtype of v; logits and softmax are f32.

    q is scaled already. The mask is True where query t may see token s; its second axis may be 1
    (broadcast), and every query sees one token at least; None: it sees all. The gradient computes the weights anew (arXiv 2205.14135,
    section 3.1): nothing of T x S is kept from the forward pass.
    """
    return _attend(q_BxTxNxK, k_BxSxNxK, v_BxSxNxK, mask_BxTxS)[0]


def _logits(q_BxTxNxK, k_BxSxNxK, mask_BxTxS):
    f32 = {"preferred_element_type": jnp.float32}
    logits_BxNxTxS = jnp.einsum("btnk,bsnk->bnts", q_BxTxNxK, k_BxSxNxK, **f32)
    if mask_BxTxS is None:
        return logits_BxNxTxS
    return jnp.where(mask_BxTxS[:, None], logits_BxNxTxS, jnp.finfo(jnp.float32).min)


def _per_query(x_BxNxTx1):
    return x_BxNxTx1.transpose(0, 2, 1, 3)


def _attend(q_BxTxNxK, k_BxSxNxK, v_BxSxNxK, mask_BxTxS):
    logits_BxNxTxS = _logits(q_BxTxNxK, k_BxSxNxK, mask_BxTxS)
    most_BxNxTx1 = logits_BxNxTxS.max(-1, keepdims=True)
    weight_BxNxTxS = jnp.exp(logits_BxNxTxS - most_BxNxTx1)
    total_BxNxTx1 = weight_BxNxTxS.sum(-1, keepdims=True)
    dtype, f32 = v_BxSxNxK.dtype, {"preferred_element_type": jnp.float32}
    sum_BxTxNxK = jnp.einsum("bnts,bsnk->btnk", weight_BxNxTxS.astype(dtype), v_BxSxNxK, **f32)
    out_BxTxNxK = (sum_BxTxNxK / _per_query(total_BxNxTx1)).astype(dtype)
    norm_BxNxTx1 = most_BxNxTx1 + jnp.log(total_BxNxTx1)
    return out_BxTxNxK, (q_BxTxNxK, k_BxSxNxK, v_BxSxNxK, mask_BxTxS, out_BxTxNxK, norm_BxNxTx1)


def _attend_gradient(kept, g_BxTxNxK):
    q_BxTxNxK, k_BxSxNxK, v_BxSxNxK, mask_BxTxS, out_BxTxNxK, norm_BxNxTx1 = kept
    dtype, f32 = v_BxSxNxK.dtype, {"preferred_element_type": jnp.float32}
    weight_BxNxTxS = jnp.exp(_logits(q_BxTxNxK, k_BxSxNxK, mask_BxTxS) - norm_BxNxTx1)
    dv_BxSxNxK = jnp.einsum("bnts,btnk->bsnk", weight_BxNxTxS.astype(dtype), g_BxTxNxK)
    dweight_BxNxTxS = jnp.einsum("btnk,bsnk->bnts", g_BxTxNxK, v_BxSxNxK, **f32)
    mean_BxTxNx1 = (g_BxTxNxK.astype(jnp.float32) * out_BxTxNxK).sum(-1, keepdims=True)
    dlogits_BxNxTxS = weight_BxNxTxS * (dweight_BxNxTxS - _per_query(mean_BxTxNx1))
    dlogits_BxNxTxS = dlogits_BxNxTxS.astype(dtype)
    dq_BxTxNxK = jnp.einsum("bnts,bsnk->btnk", dlogits_BxNxTxS, k_BxSxNxK)
    dk_BxSxNxK = jnp.einsum("bnts,btnk->bsnk", dlogits_BxNxTxS, q_BxTxNxK)
    return dq_BxTxNxK, dk_BxSxNxK, dv_BxSxNxK, None


attend.defvjp(_attend, _attend_gradient)
