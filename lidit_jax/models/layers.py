"""Building blocks shared by the conditioners and the DiT (spec: LI-DiT sections 3.1 and 3.2).

Every parameter carries the metadata `axes`: one logical name (or None) per dimension, which
`lidit_jax.sharding` maps to a mesh. Parameters are f32; `dtype` is the compute dtype of
matrix products and activations. Norm statistics, softmax and modulation are computed in f32.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Dtype = Any
_xavier = nnx.initializers.xavier_uniform()
_zeros = nnx.initializers.zeros_init()


class Constant(nnx.Variable):
    """An array that belongs to the model and is saved with it, but is not trained."""


def linear(d_in, d_out, axes, *, dtype, rngs, init=_xavier):
    """Returns `Linear` with logical axes (in, out) on its kernel."""
    return Linear(
        d_in,
        d_out,
        dtype=dtype,
        kernel_init=init,
        rngs=rngs,
        kernel_metadata={"axes": axes},
        bias_metadata={"axes": axes[-1:]},
    )


class Linear(nnx.Linear):
    """`nnx.Linear` as one product of two matrices, whatever the axes of x, and with `biased`.

    With more axes to sum over, the kernel's gradient would run at half the speed on a CPU.
    """

    def __call__(self, x):
        x_NxI = x.reshape(-1, self.in_features).astype(self.dtype)
        y_NxO = biased(x_NxI @ self.kernel[...].astype(self.dtype), self.bias[...])
        return y_NxO.reshape(*x.shape[:-1], self.out_features)


def conv(d_in, d_out, axes=("embed", "embed_out"), *, size=3, dtype, rngs, **options):
    """Returns a `Conv` of size x size cells, with logical axes (in, out) on its kernel."""
    return Conv(
        d_in,
        d_out,
        (size, size),
        dtype=dtype,
        rngs=rngs,
        kernel_metadata={"axes": (None, None, *axes)},
        bias_metadata={"axes": (None,)},
        **options,
    )


class Conv(nnx.Conv):
    """`nnx.Conv` with an f32 bias, whose gradient is summed in f32, as in `biased`."""

    def __init__(self, *args, **options):
        super().__init__(*args, promote_dtype=_but_bias, **options)

    def __call__(self, x_BxHxWxD):
        return super().__call__(x_BxHxWxD).astype(self.dtype)


def _but_bias(of, *, dtype):
    x, kernel, bias = of
    return x.astype(dtype), kernel.astype(dtype), bias


def biased(y, bias):
    """Returns y + bias in the dtype of y. The bias is f32, and its gradient is summed in f32.

    A bf16 sum of a million numbers, one per cell of a batch, stops growing at 256 times their size.
    """
    return y + jnp.broadcast_to(bias, y.shape).astype(y.dtype)


def multiplied_in(model: nnx.Module) -> dict[tuple, jnp.dtype]:
    """Returns, by path, the dtype that each kernel of the model is cast to wherever it is used.

    A kernel kept in that dtype gives the same bits, in half the memory if it is bf16. All else
    (norms' scales, and biases, which are small) is used in f32, or may be.
    """
    modules = [(path, m) for path, m in nnx.iter_modules(model) if hasattr(m, "kernel")]
    return {(*path, "kernel"): jnp.dtype(m.dtype) for path, m in modules}


def rms_norm(width, *, rngs):
    """Returns an RMSNorm over the last axis with a learned scale, eps 1e-6; f32 in and out."""
    return nnx.RMSNorm(
        width,
        dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
        scale_metadata={"axes": (None,)},
    )


def group_norm(width, groups, *, rngs):
    """Returns GroupNorm over space and groups of channels, eps 1e-6; f32 in and out."""
    affine = {"axes": (None,)}
    return nnx.GroupNorm(
        width,
        groups,
        dtype=jnp.float32,
        use_fast_variance=False,
        rngs=rngs,
        scale_metadata=affine,
        bias_metadata=affine,
    )


def layer_norm(x):
    """Returns LayerNorm over the last axis without affine parameters, eps 1e-6, in f32."""
    x = x.astype(jnp.float32)
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-6)


def modulate(x_BxTxD, scale_Bx1xD, shift_Bx1xD):
    """Returns LN(x) * (1 + scale) + shift in f32 (adaLN, arXiv 2212.09748, section 3.2)."""
    return layer_norm(x_BxTxD) * (1 + scale_Bx1xD) + shift_Bx1xD


def masked_mean(x_BxSxD, mask_BxS):
    """Returns the mean over the tokens where the mask is True, in f32: [B, D].

    Needs one per row.
    """
    weight_BxSx1 = mask_BxS[:, :, None].astype(jnp.float32)
    return (x_BxSxD * weight_BxSx1).sum(1) / weight_BxSx1.sum(1)


def sincos(t_B, width):
    """Returns the sinusoidal embedding of t in [0, 1], of 1000 t: f32 [B, width].

    DiT embeds level k of the chain itself, where 1000 t is 1.001 k (docs/model.md).
    """
    half = width // 2
    frequency_F = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half, dtype=jnp.float32) / half)
    angle_BxF = 1000.0 * t_B.astype(jnp.float32)[:, None] * frequency_F[None, :]
    return jnp.concatenate([jnp.cos(angle_BxF), jnp.sin(angle_BxF)], axis=-1)


class TimeEmbedder(nnx.Module):
    """e_t = MLP(sincos_256(t)), MLP = Linear-SiLU-Linear, weights N(0, 0.02) (DiT)."""

    def __init__(self, width, *, dtype, rngs):
        normal = nnx.initializers.normal(0.02)
        self.up = linear(256, width, (None, "embed"), dtype=dtype, rngs=rngs, init=normal)
        self.out = linear(width, width, ("embed", "embed_out"), dtype=dtype, rngs=rngs, init=normal)

    def __call__(self, t_B):
        return self.out(nnx.silu(self.up(sincos(t_B, 256)))).astype(jnp.float32)


class Modulation(nnx.Module):
    """`count` vectors per sample from a conditioning vector: Linear0(SiLU(c)), zero at
    initialisation.
    """

    def __init__(self, width, count, *, dtype, rngs):
        self.count = count
        axes = ("embed", "modulation")
        self.proj = linear(width, count * width, axes, dtype=dtype, rngs=rngs, init=_zeros)

    def __call__(self, c_BxD):
        """Returns `count` f32 arrays of shape [B, 1, D]."""
        out_Bx1xM = self.proj(nnx.silu(c_BxD)).astype(jnp.float32)[:, None, :]
        return jnp.split(out_Bx1xM, self.count, axis=-1)


class FFN(nnx.Module):
    """Linear D -> 4D, GELU (tanh), Linear 4D -> D."""

    def __init__(self, width, *, dtype, rngs):
        self.up = linear(width, 4 * width, ("embed", "mlp"), dtype=dtype, rngs=rngs)
        self.down = linear(4 * width, width, ("mlp", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, x_BxTxD):
        return self.down(nnx.gelu(self.up(x_BxTxD), approximate=True))
