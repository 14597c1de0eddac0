"""The network's inputs: `TextFeatures` per LLM, and `Batch`. Drawn here once, used everywhere.

`spec(shape)` and `fake(shape)` build the same tree as `jax.ShapeDtypeStruct`s or as random
arrays, from a `BatchShape`; every test and every ahead-of-time compilation starts from them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # jax.Array, np.ndarray or jax.ShapeDtypeStruct


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TextFeatures:
    """One frozen LLM's features of each prompt of a batch, tokens padded on the right.

    hidden_BxSxE: the LLM's hidden states, raw (no normalisation): bf16 as stored, or f32, as fresh
      from the LLM or made from `Int8Features`.
    mask_BxS: True where a token may be attended to: real, and not the sequence's first token,
      whose norm is dozens of times larger than any other's (an attention sink).
    keep_BxS: True at the prompt and its end token; these remain after the refiners.
    prefix_len: the first `prefix_len` tokens are the instruction, the same in every row.
    """

    hidden_BxSxE: Array
    mask_BxS: Array
    keep_BxS: Array
    prefix_len: int = dataclasses.field(default=0, metadata={"static": True})

    def prompt_only(self) -> "TextFeatures":
        """Returns the features without the instruction's tokens."""
        P = self.prefix_len
        return TextFeatures(self.hidden_BxSxE[:, P:], self.mask_BxS[:, P:], self.keep_BxS[:, P:])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Features:
    """What codec int8 stores of each prompt of a batch, as sent to the devices: a quarter of f32.

    `data.pipeline.Reader.restored` converts it to `TextFeatures`; nothing else reads it.
    int8_BxSxE: rounded standardised states; scale_BxS: f32, the factor of a token.
    mask_BxS: True where a token is real.
    """

    int8_BxSxE: Array
    scale_BxS: Array
    mask_BxS: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """One training batch.

    latents_BxHxWxC: f32, raw, as the VAE gave them; the model knows its own units.
    text: one `TextFeatures` per LLM, prompt and end token only (prefix_len 0): the instruction's
      features are equal in every row and live in the model. `Int8Features` until restored.
    row_B: int32, the sample's row in the data set, for logs, ledgers and tests.
    """

    latents_BxHxWxC: Array
    text: tuple[TextFeatures | Int8Features, ...]
    row_B: Array


@dataclasses.dataclass(frozen=True)
class BatchShape:
    """The static numbers that fix a `Batch`: batch size, latent (H, W, C), and (S, E) per LLM."""

    batch_size: int
    latent: tuple[int, int, int]
    text: tuple[tuple[int, int], ...]


def spec(shape: BatchShape) -> Batch:
    """Returns the batch of this shape as `jax.ShapeDtypeStruct`s."""
    B = shape.batch_size

    def struct(dims, dtype):
        return jax.ShapeDtypeStruct(dims, dtype)

    return Batch(
        latents_BxHxWxC=struct((B, *shape.latent), jnp.float32),
        text=tuple(
            TextFeatures(
                struct((B, S, E), jnp.bfloat16),
                struct((B, S), jnp.bool_),
                struct((B, S), jnp.bool_),
            )
            for S, E in shape.text
        ),
        row_B=struct((B,), jnp.int32),
    )


def fake(shape: BatchShape, seed: int = 0) -> Batch:
    """Returns a random batch (numpy): normal latents, prompts of random lengths, none empty."""
    rng = np.random.default_rng(seed)
    B = shape.batch_size

    def features(S, E):
        length_B = rng.integers(1, S + 1, B)
        mask_BxS = np.arange(S) < length_B[:, None]
        return TextFeatures(rng.normal(size=(B, S, E)).astype(jnp.bfloat16), mask_BxS, mask_BxS)

    return Batch(
        latents_BxHxWxC=rng.normal(size=(B, *shape.latent)).astype(np.float32),
        text=tuple(features(S, E) for S, E in shape.text),
        row_B=np.arange(B, dtype=np.int32),
    )
