"""Multi-head attention with QK-RMSNorm (section 3.2; arXiv 2010.04245).

One matrix product makes all projections of the same tokens; `mixing.attend` mixes, by platform.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from lidit_jax.models.layers import biased, linear, rms_norm
from lidit_jax.models.mixing import attend


class Heads(nnx.Module):
    """Tokens -> `parts` arrays for every head: queries, or keys and values, or all three.

    The kernel is [D, N, parts, K]: heads first, so that a device's part of a head stays together.
    """

    def __init__(self, width, heads, parts, *, dtype, rngs):
        self.dtype = dtype
        shape = (heads, parts, width // heads)
        # Fans of one D x D matrix for each part, however the parts are stored.
        init = jax.nn.initializers.variance_scaling(
            1.0, "fan_avg", "uniform", in_axis=0, out_axis=(1, 3), batch_axis=2
        )
        axes = ("heads", "parts", None)
        self.kernel = nnx.Param(init(rngs.params(), (width, *shape)), axes=("embed", *axes))
        self.bias = nnx.Param(jnp.zeros(shape), axes=axes)

    def __call__(self, x_BxTxD, parts=slice(None)):
        """Returns the chosen parts, each [B, N, T, K]: heads before tokens for batched products."""
        B, T, D = x_BxTxD.shape
        kernel_DxNxPxK = self.kernel[:, :, parts].astype(self.dtype)
        _, N, P, K = kernel_DxNxPxK.shape
        # One product of two matrices: with more axes to sum over, gradients are slow on a CPU.
        y = x_BxTxD.reshape(B * T, D) @ kernel_DxNxPxK.reshape(D, N * P * K)
        y_BxTxNxPxK = biased(y.reshape(B, T, N, P, K), self.bias[:, parts])
        return tuple(y_BxTxNxPxK.transpose(3, 0, 2, 1, 4))


class Mixer(nnx.Module):
    """The part shared by self- and cross-attention: QK-norm, `attend`, and the output matrix.

    q and k are normalised over the head dimension, with a learned scale shared by the heads.
    """

    def __init__(self, width, heads, *, dtype, rngs):
        self.dtype = dtype
        self.q_norm = rms_norm(width // heads, rngs=rngs)
        self.k_norm = rms_norm(width // heads, rngs=rngs)
        self.out = linear(width, width, ("heads", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS, packed=False):
        B, N, T, K = q_BxNxTxK.shape
        q_BxNxTxK = (K**-0.5 * self.q_norm(q_BxNxTxK)).astype(self.dtype)
        k_BxNxSxK = self.k_norm(k_BxNxSxK).astype(self.dtype)
        mixed_BxNxTxK = attend(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS, packed)
        return self.out(mixed_BxNxTxK.swapaxes(1, 2).reshape(B, T, N * K))


class SelfAttention(nnx.Module):
    """Tokens attend to each other."""

    def __init__(self, width, heads, *, dtype, rngs):
        self.mixer = Mixer(width, heads, dtype=dtype, rngs=rngs)
        self.qkv = Heads(width, heads, 3, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxTxD, mask_BxTxT=None, start=0):
        """Returns [B, T - start, D]: the output for the tokens from `start` on.

        The mask is True where a token (second axis: those from `start` on) may see another (third);
        the second may be 1 (broadcast).
        """
        if start == 0:
            return self.mixer(*self.qkv(x_BxTxD), mask_BxTxT)
        (q,) = self.qkv(x_BxTxD[:, start:], slice(0, 1))
        return self.mixer(q, *self.qkv(x_BxTxD, slice(1, 3)), mask_BxTxT)


class CrossAttention(nnx.Module):
    """Tokens attend to a memory."""

    def __init__(self, width, heads, *, dtype, rngs):
        self.mixer = Mixer(width, heads, dtype=dtype, rngs=rngs)
        self.q = Heads(width, heads, 1, dtype=dtype, rngs=rngs)
        self.kv = Heads(width, heads, 2, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxTxD, memory_BxSxD, mask_BxTxS, packed=False):
        """Returns [B, T, D].
        The mask is True where query t may see memory token s; T may be 1 (broadcast).

        packed: True values come first in every row of the mask (see `mixing.attend`).
        """
        return self.mixer(*self.q(x_BxTxD), *self.kv(memory_BxSxD), mask_BxTxS, packed)
