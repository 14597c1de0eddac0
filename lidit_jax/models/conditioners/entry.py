"""Shared by all conditioners: the entry of LLM features into the model, and the output type."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx

from lidit_jax.batch import Array, TextFeatures
from lidit_jax.models import layers
from lidit_jax.sharding import split_batch

FEATURE_NORMS = ("channel", "rms", "none")


@dataclasses.dataclass(frozen=True)
class TextSource:
    """The static numbers of one LLM: hidden width E, instruction tokens P, tokens of the empty
    prompt.
    """

    width: int
    prefix_len: int = 0
    null_len: int = 1


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextCondition:
    """The DiT's view of the prompts.

    Tokens [B, S, D], real ones first; mask [B, S] (True = real); pooled [B, D], f32.
    """

    tokens_BxSxD: Array
    mask_BxS: Array
    pooled_BxD: Array


class FeatureEntry(nnx.Module):
    """X = Linear(n * (F - mu) / sigma): an LLM's features at the width of the DiT.

    mu and sigma are per-channel statistics over the data set's prompt tokens: a few channels
    of an LLM hold most of its energy and are nearly constant, which no norm over channels
    removes. n is a learned per-channel scale. No gradient reaches the LLM's states.
    """

    def __init__(self, source: TextSource, width, norm, *, dtype, rngs):
        self.norm = norm
        E = source.width
        self.mean_E = layers.Constant(jnp.zeros(E))
        self.std_E = layers.Constant(jnp.ones(E))
        self.scale_E = nnx.Param(jnp.ones(E), axes=(None,))
        self.proj = layers.linear(E, width, ("features", "embed"), dtype=dtype, rngs=rngs)

    def __call__(self, features: TextFeatures):
        """Returns [B, S, D] in the compute dtype."""
        f_BxSxE = jax.lax.stop_gradient(features.hidden_BxSxE).astype(jnp.float32)
        if self.norm == "channel":
            f_BxSxE = (f_BxSxE - self.mean_E[None, None]) / self.std_E[None, None]
        elif self.norm == "rms":
            f_BxSxE *= jax.lax.rsqrt(jnp.square(f_BxSxE).mean(-1, keepdims=True) + 1e-6)
        return split_batch(self.proj(self.scale_E[None, None] * f_BxSxE))


def concat_tokens(parts: list, masks: list) -> TextCondition:
    """Returns the LLMs' kept tokens concatenated, padding last, and their masked mean.

    Along the token axis, because two tokenisers split a prompt differently. The order of tokens
    does not matter to attention; with all padding last, a count tells which are real.
    """
    tokens_BxSxD = jnp.concatenate(parts, axis=1)
    mask_BxS = jnp.concatenate(masks, axis=1)
    if len(parts) > 1:  # one LLM's padding is last already
        order_BxS = jnp.argsort(~mask_BxS, axis=1, stable=True)
        tokens_BxSxD = jnp.take_along_axis(tokens_BxSxD, order_BxS[:, :, None], axis=1)
        mask_BxS = jnp.take_along_axis(mask_BxS, order_BxS, axis=1)
    return TextCondition(tokens_BxSxD, mask_BxS, layers.masked_mean(tokens_BxSxD, mask_BxS))
