"""`infused`: the LLM-infused Diffuser (section 3.1, Fig. 5), the paper's conditioner.

Per LLM, a linguistic token refiner lets every token see every other, which the LLM's causal
mask forbade; across LLMs, a collaborative refiner lets each attend to the others; then the
instruction's tokens are cut off and the rest is concatenated. Both refiners are controlled by
the timestep and by the prompt itself.
"""

import dataclasses

import jax.numpy as jnp
from flax import nnx

from lidit_jax.models import attention, layers, stacking
from lidit_jax.models.conditioners.entry import FeatureEntry, TextCondition, concat_tokens

_SWITCHES = {"name", "feature_norm", "n_ltr", "gating", "ltr_mask", "fusion", "n_cr", "context"}


class RefinerBlock(nnx.Module):
    """One block of the linguistic token refiner.

    X <- X + g1 * SA(RMSNorm(X));  X <- X + g2 * FFN(RMSNorm(X));  [g1, g2] = Linear0(SiLU(c)).
    The gates start at zero, so the refiner starts as the identity. `gating=False`: g = 1.
    """

    def __init__(self, width, heads, gating, *, dtype, rngs):
        self.dtype = dtype
        self.attention = attention.SelfAttention(width, heads, dtype=dtype, rngs=rngs)
        self.ffn = layers.FFN(width, dtype=dtype, rngs=rngs)
        self.norm1 = layers.rms_norm(width, rngs=rngs)
        self.norm2 = layers.rms_norm(width, rngs=rngs)
        self.gates = layers.Modulation(width, 2, dtype=dtype, rngs=rngs) if gating else None

    def __call__(self, x_BxSxD, c_BxD, mask_BxSxS, start=0):
        """Returns the tokens from `start` on, refined; those before are attended to, not refined.

        The mask's second dimension may be 1 (broadcast).
        """
        g1, g2 = self.gates(c_BxD) if self.gates else (1.0, 1.0)
        if mask_BxSxS.shape[1] > 1:
            mask_BxSxS = mask_BxSxS[:, start:]
        h_BxSxD = self.norm1(x_BxSxD).astype(self.dtype)
        read_BxTxD = self.attention(h_BxSxD, mask_BxSxS, start)
        x_BxTxD = x_BxSxD[:, start:] + (g1 * read_BxTxD).astype(self.dtype)
        h_BxTxD = self.norm2(x_BxTxD).astype(self.dtype)
        return x_BxTxD + (g2 * self.ffn(h_BxTxD)).astype(self.dtype)


class CollaborativeBranch(nnx.Module):
    """One LLM's branch of a collaborative refiner block: it queries the other LLMs' tokens.

    Y = X + g1 * CA(mod(X; s1, b1), K);  X' = Y + g2 * FFN(mod(Y; s2, b2)), adaLN-zero.
    """

    def __init__(self, width, heads, *, dtype, rngs):
        self.dtype = dtype
        self.attention = attention.CrossAttention(width, heads, dtype=dtype, rngs=rngs)
        self.ffn = layers.FFN(width, dtype=dtype, rngs=rngs)
        self.memory_norm = layers.rms_norm(width, rngs=rngs)
        self.modulation = layers.Modulation(width, 6, dtype=dtype, rngs=rngs)

    def __call__(self, x_BxSxD, c_BxD, memory_BxMxD, memory_mask_BxM):
        s1, b1, g1, s2, b2, g2 = self.modulation(c_BxD)
        memory_BxMxD = self.memory_norm(memory_BxMxD).astype(self.dtype)
        h_BxSxD = layers.modulate(x_BxSxD, s1, b1).astype(self.dtype)
        mixed_BxSxD = self.attention(h_BxSxD, memory_BxMxD, memory_mask_BxM[:, None])
        x_BxSxD = x_BxSxD + (g1 * mixed_BxSxD).astype(self.dtype)
        h_BxSxD = layers.modulate(x_BxSxD, s2, b2).astype(self.dtype)
        return x_BxSxD + (g2 * self.ffn(h_BxSxD)).astype(self.dtype)


def collaborative_blocks(config, llms: int) -> int:
    """Returns how many collaborative refiner blocks there are with this many LLMs."""
    return config.n_cr if llms > 1 and config.fusion == "refiner" else 0


def is_controlled(config, llms: int) -> bool:
    """Returns whether any refiner has gates or modulations, which the time and context control."""
    return bool(config.n_ltr and config.gating or collaborative_blocks(config, llms))


class Infused(nnx.Module):
    """Entry -> token refiner -> collaborative refiner -> kept tokens -> norm -> concat."""

    keeps_tokens = True

    def __init__(self, config, sources, width, heads, *, dtype, scan, rngs):
        n = len(sources)
        n_cr = collaborative_blocks(config, n)
        self.causal = config.ltr_mask == "causal"
        self.context_of_all = config.context == "all"
        self.scan, self.dtype = scan, dtype
        build = dict(dtype=dtype, rngs=rngs)

        def make_block(rngs):
            return RefinerBlock(width, heads, config.gating, dtype=dtype, rngs=rngs)

        self.entries = nnx.List(
            [FeatureEntry(s, width, config.feature_norm, **build) for s in sources]
        )
        self.uses_time = controlled = is_controlled(config, n)
        self.pools = nnx.List(
            [
                layers.linear(width, width, ("embed", "embed_out"), **build)
                for _ in range(n if controlled else 0)
            ]
        )
        self.refiners = nnx.List(
            [
                stacking.stack(make_block, config.n_ltr, rngs)
                for _ in range(n if config.n_ltr else 0)
            ]
        )
        self.collaborative = nnx.List(
            [
                nnx.List([CollaborativeBranch(width, heads, **build) for _ in range(n)])
                for _ in range(n_cr)
            ]
        )
        self.out_norms = nnx.List([layers.rms_norm(width, rngs=rngs) for _ in range(n)])

    def __call__(self, features, e_t_BxD) -> TextCondition:
        """Returns the refined prompt tokens of all LLMs, for a timestep embedding [B, D].

        The last stage, whichever it is, drops the instruction's tokens: nothing reads them later.
        """
        masks = [f.mask_BxS for f in features]
        starts = [f.prefix_len for f in features]  # of what is kept
        xs = [entry(f) for entry, f in zip(self.entries, features, strict=True)]
        cs = [
            self._context(pool, x, f, e_t_BxD) for pool, x, f in zip(self.pools, xs, features)
        ] or [e_t_BxD] * len(xs)
        for i, blocks in enumerate(self.refiners):
            start = 0 if self.collaborative else starts[i]
            mask = self._mask(masks[i])
            xs[i] = self.scan(blocks, xs[i], cs[i], mask, last_args=(cs[i], mask, start))
        for k, branches in enumerate(self.collaborative):
            last = k == len(self.collaborative) - 1
            xs = [
                branch(
                    x[:, start if last else 0 :],
                    c,
                    jnp.concatenate(_without(xs, i), 1),
                    jnp.concatenate(_without(masks, i), 1),
                )
                for i, (branch, x, c, start) in enumerate(zip(branches, xs, cs, starts))
            ]
        keeps = [f.prompt_only().keep_BxS for f in features]
        parts = [
            norm(x[:, -keep.shape[1] :]).astype(self.dtype)
            for norm, x, keep in zip(self.out_norms, xs, keeps, strict=True)
        ]
        return concat_tokens(parts, keeps)

    @staticmethod
    def unused(config, llms):
        unused = {f.name for f in dataclasses.fields(config)} - _SWITCHES
        if llms == 1:
            unused |= {"fusion"}
        if not collaborative_blocks(config, llms):
            unused |= {"n_cr"}
        if not config.n_ltr:
            unused |= {"gating", "ltr_mask"}
        if not is_controlled(config, llms):
            unused |= {"context"}
        return unused

    def _context(self, pool, x_BxSxD, features, e_t_BxD):
        """c = e_t + Linear(mean of X): the input of the gates and modulations of one LLM."""
        over_BxS = features.mask_BxS if self.context_of_all else features.keep_BxS
        return e_t_BxD + pool(layers.masked_mean(x_BxSxD, over_BxS)).astype(jnp.float32)

    def _mask(self, mask_BxS):
        if not self.causal:
            return mask_BxS[:, None]
        S = mask_BxS.shape[1]
        earlier_1xSxS = jnp.tril(jnp.ones((1, S, S), bool))
        # A token always sees itself, so that no row is empty if the first token is masked.
        return (earlier_1xSxS & mask_BxS[:, None]) | jnp.eye(S, dtype=bool)[None]


def _without(items, i):
    return items[:i] + items[i + 1 :]
