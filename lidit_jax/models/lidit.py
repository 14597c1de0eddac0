"""LI-DiT (section 3.2): a cross-attention DiT with adaLN-zero, QK-RMSNorm and a convolutional
position block, and the whole model: conditioner + DiT.
"""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
from flax import nnx

from lidit_jax import errors
from lidit_jax.batch import TextFeatures
from lidit_jax.models import attention, conditioners, layers, stacking
from lidit_jax.sharding import split_batch


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The model's size and switches.

    width, depth, heads, patch: the DiT's (1152, 28, 16, 2 in LI-DiT-1B).
    dtype: compute dtype, "bfloat16" or "float32"; parameters are always f32.
    remat: what the backward pass of the stacks of blocks recomputes, "none" or "full"
      (`stacking.REMAT_POLICIES`); the collaborative refiner and the parts before the stacks are not
      rematerialised.
    unroll: blocks per iteration of the loop over blocks; a small model on a CPU runs faster with
      all.
    """

    width: int
    depth: int
    heads: int
    patch: int
    dtype: str = "bfloat16"
    remat: str = "none"
    unroll: int = 1
    conditioner: conditioners.ConditionerConfig = conditioners.ConditionerConfig()

    def __post_init__(self):
        if self.dtype not in ("bfloat16", "float32"):
            raise errors.unknown_name("model.dtype", self.dtype, ("bfloat16", "float32"))
        if self.remat not in stacking.REMAT_POLICIES:
            raise errors.unknown_name("model.remat", self.remat, stacking.REMAT_POLICIES)
        for name in ("width", "depth", "heads", "patch", "unroll"):
            errors.check_range(f"model.{name}", getattr(self, name), 1)
        if self.width % self.heads:
            raise errors.InputError(
                f"model.width {self.width} does not divide over model.heads {self.heads}"
            )
        if self.remat != "none" and self.unroll >= self.depth > 1:
            raise errors.InputError(
                f"model.remat={self.remat!r} needs a loop over blocks, but model.unroll="
                f"{self.unroll} unrolls all {self.depth} blocks, and XLA merges what is computed "
                f"twice; use model.unroll=1, or remat 'none'"
            )

    @property
    def scan(self) -> stacking.Scan:
        return stacking.Scan(self.remat, self.unroll)


class PositionBlock(nnx.Module):
    """x + Conv3x3(SiLU(RMSNorm(Conv3x3(SiLU(RMSNorm(x)))))): the only position signal.

    Zero padding and shared neighbourhoods break the permutation symmetry that attention cannot,
    at any size. The norm is over channels alone, so that no position depends on another's
    statistics (DiT's peers use GroupNorm or BatchNorm; the paper does not say).
    """

    def __init__(self, width, *, dtype, rngs):
        self.dtype = dtype
        init = nnx.initializers.xavier_uniform()
        build = dict(dtype=dtype, rngs=rngs, kernel_init=init)
        self.norm1 = layers.rms_norm(width, rngs=rngs)
        self.conv1 = layers.conv(width, width, **build)
        self.norm2 = layers.rms_norm(width, rngs=rngs)
        self.conv2 = layers.conv(width, width, **build)

    def __call__(self, x_BxHxWxD):
        h = self.conv1(nnx.silu(self.norm1(x_BxHxWxD)).astype(self.dtype))
        return x_BxHxWxD + self.conv2(nnx.silu(self.norm2(h)).astype(self.dtype))


class Block(nnx.Module):
    """One LI-DiT block: self-attention, cross-attention to the text and FFN, each adaLN-zero."""

    def __init__(self, width, heads, *, dtype, rngs):
        self.dtype = dtype
        self.self_attention = attention.SelfAttention(width, heads, dtype=dtype, rngs=rngs)
        self.cross_attention = attention.CrossAttention(width, heads, dtype=dtype, rngs=rngs)
        self.ffn = layers.FFN(width, dtype=dtype, rngs=rngs)
        self.modulation = layers.Modulation(width, 9, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxTxD, c_BxD, text_BxSxD, text_mask_BxS):
        s1, b1, g1, s2, b2, g2, s3, b3, g3 = self.modulation(c_BxD)
        h_BxTxD = layers.modulate(x_BxTxD, s1, b1).astype(self.dtype)
        x_BxTxD = x_BxTxD + (g1 * self.self_attention(h_BxTxD)).astype(self.dtype)
        h_BxTxD = layers.modulate(x_BxTxD, s2, b2).astype(self.dtype)
        mask_Bx1xS = text_mask_BxS[:, None]
        read_BxTxD = self.cross_attention(h_BxTxD, text_BxSxD, mask_Bx1xS, packed=True)
        x_BxTxD = x_BxTxD + (g2 * read_BxTxD).astype(self.dtype)
        h_BxTxD = layers.modulate(x_BxTxD, s3, b3).astype(self.dtype)
        return x_BxTxD + (g3 * self.ffn(h_BxTxD)).astype(self.dtype)


class DiT(nnx.Module):
    """The denoiser: noisy latents, a timestep embedding and a text condition -> prediction."""

    def __init__(self, config: ModelConfig, channels: int, *, rngs):
        D, p, dtype = config.width, config.patch, jnp.dtype(config.dtype)
        self.patch, self.channels, self.dtype, self.scan = p, channels, dtype, config.scan
        zeros = nnx.initializers.zeros_init()
        build = dict(dtype=dtype, rngs=rngs)
        self.patchify = layers.linear(p * p * channels, D, (None, "embed"), **build)
        self.position = PositionBlock(D, **build)
        self.time = layers.TimeEmbedder(D, **build)
        self.pooled = layers.linear(D, D, ("embed", "embed_out"), **build)
        self.blocks = stacking.stack(
            lambda rngs: Block(D, config.heads, dtype=dtype, rngs=rngs), config.depth, rngs
        )
        self.final_modulation = layers.Modulation(D, 2, **build)
        self.final = layers.linear(D, p * p * channels, ("embed", None), init=zeros, **build)

    def __call__(self, x_BxHxWxC, e_t_BxD, condition):
        """Returns the prediction, f32 [B, H, W, C]; the patch must divide H and W
        (`vae.latent_size`).
        """
        B, H, W, C = x_BxHxWxC.shape
        p = self.patch
        h, w = H // p, W // p
        x = x_BxHxWxC.astype(self.dtype).reshape(B, h, p, w, p, C).transpose(0, 1, 3, 2, 4, 5)
        x = self.position(split_batch(self.patchify(x.reshape(B, h, w, p * p * C))))
        c_BxD = split_batch(e_t_BxD + self.pooled(condition.pooled_BxD).astype(jnp.float32))
        x_BxTxD = self.scan(
            self.blocks, x.reshape(B, h * w, -1), c_BxD, condition.tokens_BxSxD, condition.mask_BxS,
        )  # fmt: skip
        scale, shift = self.final_modulation(c_BxD)
        x = self.final(layers.modulate(x_BxTxD, scale, shift).astype(self.dtype))
        x = x.astype(jnp.float32).reshape(B, h, w, p, p, C).transpose(0, 1, 3, 2, 4, 5)
        return x.reshape(B, H, W, C)


class TextConstants(nnx.Module):
    """One LLM's features that all prompts share: the instruction's and the empty prompt's."""

    def __init__(self, source: conditioners.TextSource):
        self.prefix_PxE = layers.Constant(jnp.zeros((source.prefix_len, source.width)))
        self.null_ZxE = layers.Constant(jnp.zeros((source.null_len, source.width)))

    def empty(self) -> TextFeatures:
        """Returns the features of the empty prompt, in one row, without the instruction."""
        mask_1xZ = jnp.ones((1, self.null_ZxE.shape[0]), bool)
        return TextFeatures(self.null_ZxE[None], mask_1xZ, mask_1xZ)

    def complete(self, text: TextFeatures, drop_B) -> TextFeatures:
        """Returns instruction + prompt; rows in `drop_B` have the empty prompt instead.

        The first token of a causal LLM's sequence, which is always the prefix's, is an attention
        sink: it is masked as a key, and not averaged for the gates.
        """
        (B, S, E), (P, _), (Z, _) = (
            text.hidden_BxSxE.shape,
            self.prefix_PxE.shape,
            self.null_ZxE.shape,
        )
        null_1xSxE = jnp.zeros((1, S, E)).at[:, :Z].set(self.null_ZxE[None])
        null_mask_1xS = (jnp.arange(S) < Z)[None]
        hidden_BxSxE = jnp.where(drop_B[:, None, None], null_1xSxE, text.hidden_BxSxE)
        keep_BxS = jnp.where(drop_B[:, None], null_mask_1xS, text.keep_BxS)
        mask_BxS = jnp.where(drop_B[:, None], null_mask_1xS, text.mask_BxS)
        prefix_BxPxE = jnp.broadcast_to(self.prefix_PxE[None], (B, P, E))
        seen_BxP = jnp.broadcast_to((jnp.arange(P) > 0)[None], (B, P))
        return TextFeatures(
            jnp.concatenate([prefix_BxPxE, hidden_BxSxE], 1),
            jnp.concatenate([seen_BxP, mask_BxS], 1),
            jnp.concatenate([jnp.zeros((B, P), bool), keep_BxS], 1),
            prefix_len=P,
        )


class LiDiT(nnx.Module):
    """Conditioner + DiT: noisy latents, time and the prompts' LLM features -> prediction."""

    def __init__(
        self,
        config: ModelConfig,
        channels: int,
        sources: Sequence[conditioners.TextSource],
        *,
        rngs: nnx.Rngs,
    ):
        self.dit = DiT(config, channels, rngs=rngs)
        self.conditioner = conditioners.build(
            config.conditioner, sources, config.width, config.heads,
            dtype=jnp.dtype(config.dtype), scan=config.scan, rngs=rngs,
        )  # fmt: skip
        self.text = nnx.List([TextConstants(s) for s in sources])
        self.latent_mean_C = layers.Constant(jnp.zeros(channels))
        self.latent_std_C = layers.Constant(jnp.ones(channels))

    def __call__(self, x_BxHxWxC, t_B, text: tuple[TextFeatures, ...], drop_B):
        """Returns the prediction, f32 [B, H, W, C], in the view that the objective trains.

        Args:
          x_BxHxWxC: noisy latents in model units.
          t_B: time in [0, 1].
          text: prompt features of each LLM, without the instruction's tokens.
          drop_B: True where the prompt is replaced by the empty prompt (classifier-free guidance).
        """
        e_t_BxD = self.time(t_B)
        return self.dit(x_BxHxWxC, e_t_BxD, self.condition(text, drop_B, e_t_BxD))

    def time(self, t_B):
        """Returns the timestep embedding, f32 [B, D]."""
        return split_batch(self.dit.time(t_B))

    def condition(self, text: tuple[TextFeatures, ...], drop_B, e_t_BxD):
        """Returns the DiT's condition for the prompts; arguments as above."""
        complete = tuple(c.complete(f, drop_B) for c, f in zip(self.text, text, strict=True))
        return self.conditioner(complete, e_t_BxD)

    def empty_condition(self, e_t_1xD):
        """Returns the DiT's condition for the empty prompt: one row, as long as that prompt."""
        empty = tuple(constants.empty() for constants in self.text)
        return self.condition(empty, jnp.zeros(1, bool), e_t_1xD)

    def from_raw(self, latents_BxHxWxC):
        """Returns the codec's raw latents in model units: about zero mean, unit variance per
        channel.
        """
        mean, std = self.latent_mean_C[None, None, None], self.latent_std_C[None, None, None]
        return (latents_BxHxWxC - mean) / std

    def to_raw(self, latents_BxHxWxC):
        """Returns latents in model units as the codec's raw latents."""
        return (
            latents_BxHxWxC * self.latent_std_C[None, None, None]
            + self.latent_mean_C[None, None, None]
        )

    @staticmethod
    def constants(latent_mean_C, latent_std_C, text: Sequence[dict]) -> dict:
        """Returns the values of the model's constants, nested like the model.

        `text` has, per LLM, the arrays mean_E, std_E, prefix_PxE and null_ZxE, as measured when its
        features were written.
        """
        return {
            "latent_mean_C": latent_mean_C,
            "latent_std_C": latent_std_C,
            "conditioner": {
                "entries": {i: {k: t[k] for k in ("mean_E", "std_E")} for i, t in enumerate(text)}
            },
            "text": {i: {k: t[k] for k in ("prefix_PxE", "null_ZxE")} for i, t in enumerate(text)},
        }
