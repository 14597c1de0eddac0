"""softmax(q k^T) v behind one function, `attend`, by the fastest means for the target platform.

plain     products and a softmax: everywhere, with any mask
cudnn     NVIDIA's kernel, through `jax.nn.dot_product_attention`: in bf16, Ampere and later
splash    JAX's kernel for TPUs, for many queries
Neither kernel stores T x S weights, in the forward or in the backward pass. `is_kept` recognises
what a gradient needs from the forward pass, beside its arguments.
"""

import functools
import re

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from lidit_jax import sharding

MANY = 1024  # queries from which on splash is used; what it saves: docs/performance.md
# Tokens that splash reads at a time: a multiple of _LANE, at most _BLOCK.
_LANE, _BLOCK = 128, 512
_CUDNN_WIDTH = 128  # of a head, at most
_KEPT = "attention"  # the name of the output, and of the norm of the weights


def attend(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS=None, packed=False):
    """Returns softmax(q k^T) v, [B, N, T, K], in the dtype of v; logits and softmax are f32.

    q is scaled already. The mask is True where query t may see token s; its second axis may be 1
    (broadcast), and every query must see at least one token; None: queries see all tokens.
    packed: the mask's second axis is 1, and True values come first in every row, so that their
    count describes the row.
    """
    kernel = chosen(q_BxNxTxK, k_BxNxSxK, mask_BxTxS, packed)
    return KERNELS[kernel](q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS)


def chosen(q_BxNxTxK, k_BxNxSxK, mask_BxTxS, packed) -> str:
    """Returns the name in KERNELS of the kernel that `attend` uses."""
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
    """Returns whether the target is a GPU for cuDNN's attention: NVIDIA's, Ampere and later."""
    if sharding.platform() != "gpu":
        return False
    try:
        device = jax.local_devices(backend="gpu")[0]
    except RuntimeError:
        return True  # planned for absent GPUs: all in `benchmarking.chips` are later
    number = re.fullmatch(r"(\d+)\.\d+", getattr(device, "compute_capability", ""))
    return bool(number) and int(number[1]) >= 8  # AMD's have names, such as gfx942


def is_kept(primitive, *_, **params) -> bool:
    """A policy for `jax.checkpoint`: whether a kernel's gradient needs a primitive's output."""
    named = jax.checkpoint_policies.save_only_these_names(_KEPT)
    return named(primitive, **params) or primitive.name.startswith("dot_product_attention_fwd")


_sum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@jax.custom_vjp
def plain(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_BxTxS):
    """Computes `attend` with products of matrices.

    The gradient recomputes the weights (arXiv 2205.14135, section 3.1): nothing of T x S is kept
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
    """Computes `attend` on 16-bit numbers with cuDNN; the tokens that the mask shows come first."""

    def on_device(q, k, v, count_B):
        tokens_first = (jnp.swapaxes(a, 1, 2) for a in (q, k, v))
        out_BxTxNxK = jax.nn.dot_product_attention(
            *tokens_first, scale=1.0, key_value_seq_lengths=count_B, implementation="cudnn"
        )
        return jnp.swapaxes(out_BxTxNxK, 1, 2)

    count_B = None if mask_Bx1xS is None else mask_Bx1xS[:, 0].sum(-1, dtype=jnp.int32)
    return sharding.by_rows_and_heads(on_device)(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, count_B)


def splash(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_Bx1xS, interpret=False):
    """Computes `attend` with splash attention. Unseen tokens are in another segment than queries.

    interpret: run on any platform, slowly.
    """
    # In an experimental package that may move; it takes a second to import, for TPUs alone.
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
    """Returns the number of tokens, rounded up to whole blocks of splash."""
    unit = _LANE if tokens <= _BLOCK else _BLOCK
    return -(-tokens // unit) * unit


def _longer(a, length: int, axis: int):
    """Returns an array padded with zeros at the end of an axis, to this length."""
    return jnp.pad(a, [(0, length - a.shape[i] if i == axis else 0) for i in range(a.ndim)])


KERNELS = {"plain": plain, "cudnn": cudnn, "splash": splash}
