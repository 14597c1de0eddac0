"""Stacks of equal blocks: one module whose parameters have an axis "layers", run by a loop.

The rematerialisation policy of the backward pass is chosen here, by name.
"""

import dataclasses
from collections.abc import Callable

import jax
from flax import nnx

from lidit_jax.models import mixing
from lidit_jax.sharding import split_batch

# What the backward pass of a stack of blocks recomputes, from least to most. "none": no product but
# attention's logits, yet norms, GELU and modulation, whose f32 results would take several times the
# memory of the products', and longer to write and read than to compute. "full": whole blocks.
_POLICIES = jax.checkpoint_policies
REMAT_POLICIES = {
    "none": _POLICIES.save_from_both_policies(
        _POLICIES.dots_with_no_batch_dims_saveable, mixing.is_kept
    ),
    "full": _POLICIES.nothing_saveable,
}


def stack(make: Callable[[nnx.Rngs], nnx.Module], depth: int, rngs: nnx.Rngs) -> nnx.Module:
    """Returns `depth` blocks as one module whose parameters have a leading "layers" axis."""
    blocks = jax.vmap(lambda key: make(nnx.Rngs(params=key)))(
        jax.random.split(rngs.params(), depth)
    )
    for _, param in nnx.to_flat_state(nnx.state(blocks, nnx.Param)):
        param.set_metadata(axes=("layers", *param.get_metadata("axes")))
    return blocks


@dataclasses.dataclass(frozen=True)
class Scan:
    """How a stack of blocks is run: what its backward pass recomputes, and blocks per iteration.

    remat: a name in REMAT_POLICIES. unroll: more blocks per iteration compile longer, run faster.
    """

    remat: str = "none"
    unroll: int = 1

    def __call__(self, blocks: nnx.Module, x, *args, last_args: tuple | None = None):
        """Returns x after every block: `x = block(x, *args)`, with `last_args` for the last if
        given.
        """
        if last_args is not None:
            x = self(jax.tree.map(lambda a: a[:-1], blocks), x, *args)
            last = jax.tree.map(lambda a: a[-1], blocks)
            return self._body(last_args, prevent_cse=True)(x, last)[0]
        return jax.lax.scan(self._body(args), x, blocks, unroll=self.unroll)[0]

    def _body(self, args, prevent_cse=False):
        """Returns the scan's body. prevent_cse: outside a loop, where XLA merges repeated work."""

        def body(x, block):
            return split_batch(block(split_batch(x), *args)), None

        return jax.checkpoint(body, policy=REMAT_POLICIES[self.remat], prevent_cse=prevent_cse)
