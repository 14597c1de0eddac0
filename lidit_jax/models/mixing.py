"""softmax(q k^T) v behind one function, `attend`, by what is fastest where it is compiled for.

plain     products and a softmax: everywhere, and any mask
cudnn     NVIDIA's kernel, through `jax.nn.dot_product_attention`: in bf16, Ampere and later
splash    JAX's kernel for TPUs, where queries are many
Neither kernel stores weights of T x S, in the forward or in the backward pass. What a gradient wants of the
forward pass, beside its arguments, can be told from all else by `is_kept`.
"""

import functools
import re

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lidit_jax import sharding

MANY = 1024  # queries from which on splash is taken; what it saves: docs/performance.md
# Tokens that splash reads at a time: a multiple of the one, at most the other.
_LANE, _BLOCK = 128, 512
_CUDNN_WIDTH = 128  # of a head, at most
_KEPT = "attention"  # the name of what is attended, and of the norm of its weights


def attend(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS=None, packed=False):
    """Returns softmax(q k^T) v, [B, N, T, K], in the dtype of v; logits and softmax are f32.

    q is scaled already. The mask is True where query t may see token s; its second axis may be 1
    (broadcast), and every query sees one token at least; None: it sees all. packed: the mask's second
    axis is 1, and the True ones come first in every row, so that their count says it all.
    """
    kernel = chosen(q_BxNxTxK, k_BxNxSxK, mask_BxTxS, packed)
    return KERNELS[kernel](q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS)


def chosen(q_BxNxTxK, k_BxNxSxK, mask_BxTxS, packed) -> str:
    """Returns the name of the kernel that `attend` takes, of KERNELS."""
    B, _, T, K = q_BxNxTxK.shape
    by_token = mask_BxTxS is None or mask_BxTxS.shape[1] == 1
    if not sharding.rows_divide(B):
        return "plain"
    if sharding.platform() == "tpu" and T >= MANY and by_token:
        return "splash"
    fits = q_BxNxTxK.dtype == jnp.bfloat16 and K <= _CUDNN_WIDTH and K % 8 == 0
    if fits and (mask_BxTxS is None or packed) and has_cudnn():
        return "cudnn"
    return "plain"


def has_cudnn() -> bool:
    """Returns whether it is compiled for GPUs that cuDNN's attention runs on: NVIDIA's, from Ampere on."""
    if sharding.platform() != "gpu":
        return False
    try:
        device = jax.local_devices(backend="gpu")[0]
    except RuntimeError:
        return True  # planned for GPUs that are not here: all of `benchmarking.chips` are later
    number = re.fullmatch(r"(\d+)\.\d+", getattr(device, "compute_capability", ""))
    return bool(number) and int(number[1]) >= 8  # AMD's have names, such as gfx942


def is_kept(primitive, *_, **params) -> bool:
    """A policy for `jax.checkpoint`: whether a primitive makes what a kernel's gradient wants of the forward pass."""
    named = jax.checkpoint_policies.save_only_these_names(_KEPT)
    return named(primitive, **params) or primitive.name.startswith("dot_product_attention_fwd")


_sum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@jax.custom_vjp
def plain(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS):
    """What `attend` returns, by products of matrices.

    The gradient computes the weights anew (arXiv 2205.14135, section 3.1): nothing of T x S is kept
    from the forward pass.
    """
    return _forward(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS)[0]


def _logits(q_BxNxTxK, k_BxNxSxK, mask_BxTxS):
    logits_BxNxTxS = _sum("bntk,bnsk->bnts", q_BxNxTxK, k_BxNxSxK)
    if mask_BxTxS is None:
        return logits_BxNxTxS
    return jnp.where(mask_BxTxS[:, None], logits_BxNxTxS, jnp.finfo(jnp.float32).min)


def _forward(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS):
    logits_BxNxTxS = _logits(q_BxNxTxK, k_BxNxSxK, mask_BxTxS)
    most_BxNxTx1 = logits_BxNxTxS.max(-1, keepdims=True)
    weight_BxNxTxS = jnp.exp(logits_BxNxTxS - most_BxNxTx1)
    total_BxNxTx1 = weight_BxNxTxS.sum(-1, keepdims=True)
    dtype = v_BxNxSxK.dtype
    sum_BxNxTxK = _sum("bnts,bnsk->bntk", weight_BxNxTxS.astype(dtype), v_BxNxSxK)
    out_BxNxTxK = checkpoint_name((sum_BxNxTxK / total_BxNxTx1).astype(dtype), _KEPT)
    norm_BxNxTx1 = checkpoint_name(most_BxNxTx1 + jnp.log(total_BxNxTx1), _KEPT)
    return out_BxNxTxK, (q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS, out_BxNxTxK, norm_BxNxTx1)


def _gradient(kept, g_BxNxTxK):
    q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS, out_BxNxTxK, norm_BxNxTx1 = kept
    dtype = v_BxNxSxK.dtype
    weight_BxNxTxS = jnp.exp(_logits(q_BxNxTxK, k_BxNxSxK, mask_BxTxS) - norm_BxNxTx1)
    dv_BxNxSxK = _sum("bnts,bntk->bnsk", weight_BxNxTxS.astype(dtype), g_BxNxTxK)
    dweight_BxNxTxS = _sum("bntk,bnsk->bnts", g_BxNxTxK, v_BxNxSxK)
    mean_BxNxTx1 = (g_BxNxTxK.astype(jnp.float32) * out_BxNxTxK).sum(-1, keepdims=True)
    dlogits_BxNxTxS = (weight_BxNxTxS * (dweight_BxNxTxS - mean_BxNxTx1)).astype(dtype)
    dq_BxNxTxK = _sum("bnts,bnsk->bntk", dlogits_BxNxTxS, k_BxNxSxK)
    dk_BxNxSxK = _sum("bnts,bntk->bnsk", dlogits_BxNxTxS, q_BxNxTxK)
    return dq_BxNxTxK.astype(dtype), dk_BxNxSxK.astype(dtype), dv_BxNxSxK.astype(dtype), None


plain.defvjp(_forward, _gradient)


def cudnn(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_Bx1xS):
    """What `attend` returns of 16-bit numbers, by cuDNN; the tokens that the mask shows come first."""

    def on_device(q, k, v, count_B):
        tokens_first = (jnp.swapaxes(a, 1, 2) for a in (q, k, v))
        out_BxTxNxK = jax.nn.dot_product_attention(
            *tokens_first, scale=1.0, key_value_seq_lengths=count_B, implementation="cudnn"
        )
        return jnp.swapaxes(out_BxTxNxK, 1, 2)

    count_B = None if mask_Bx1xS is None else mask_Bx1xS[:, 0].sum(-1, dtype=jnp.int32)
    return sharding.by_rows_and_heads(on_device)(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, count_B)


def splash(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_Bx1xS, interpret=False):
    """What `attend` returns, by splash attention. Tokens not seen are of another segment than the queries.

    interpret: on any platform, slowly.
    """
    # Of an experimental package that may move; a second to import, for TPUs alone.
    from jax.experimental.pallas.ops.tpu import splash_attention

    def on_device(q, k, v, mask_Bx1xS):
        (B, N, T, _), S = q.shape, k.shape[2]
        t, s = _padded(T), _padded(S)
        many = splash_attention.MultiHeadMask([splash_attention.FullMask((t, s))] * N)
        q_block, k_block = min(t, _BLOCK), min(s, _BLOCK)
        forward = backward = (q_block, k_block, k_block)
        kernel = splash_attention.make_splash_mha_single_device(
            many, interpret=interpret, residual_checkpoint_name=_KEPT,
            block_sizes=splash_attention.BlockSizes(*forward, *backward, q_block, k_block),
        )  # fmt: skip
        seen_BxS = jnp.ones((B, S), bool) if mask_Bx1xS is None else mask_Bx1xS[:, 0]
        segments = splash_attention.SegmentIds(
            jnp.ones((B, t), jnp.int32), _longer(seen_BxS.astype(jnp.int32), s, axis=1)
        )
        out_BxNxtxK = jax.vmap(kernel)(
            *(_longer(a, n, 2) for a, n in ((q, t), (k, s), (v, s))), segments
        )
        return out_BxNxtxK[:, :, :T]

    return sharding.by_rows_and_heads(on_device)(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_Bx1xS)


def _padded(tokens: int) -> int:
    """Returns a length, not less, that whole blocks of splash make."""
    unit = _LANE if tokens <= _BLOCK else _BLOCK
    return -(-tokens // unit) * unit


def _longer(a, length: int, axis: int):
    """Returns an array with zeros behind, so long on an axis."""
    return jnp.pad(a, [(0, length - a.shape[i] if i == axis else 0) for i in range(a.ndim)])


KERNELS = {"plain": plain, "cudnn": cudnn, "splash": splash}
