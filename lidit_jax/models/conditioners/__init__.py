"""Conditioners: LLM features -> what the DiT attends to. One interface, a visible table.

A conditioner is built as `CONDITIONERS[config.name](config, sources, width, heads, ...)` and called
as `conditioner(features, e_t_BxD) -> TextCondition`. Whatever it does inside, changing values where
a mask is False changes nothing, more padding changes no valid output, and no gradient reaches the
LLM's hidden states.

Of what it returns, no row is empty, real tokens come before padding (the DiT's attention expresses
the mask as a length), and `pooled_BxD` is their mean, as `entry.concat_tokens` makes it.

To add one, write a `Conditioner`. Its parameters name their `axes`, as in `layers.linear`, so that
they can be sharded; those called `kernel` are decayed, and get Muon's updates. Add its name to
`CONDITIONERS`, its switches to `ConditionerConfig`, its own and configs/base.py, its products to
`benchmarking.flops.CONDITIONERS`, and a variant of it to tests/models/conditioners_test.py, which
tests the above.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from flax import nnx

from lidit_jax import errors
from lidit_jax.batch import TextFeatures
from lidit_jax.models import layers, stacking
from lidit_jax.models.conditioners.direct import Direct
from lidit_jax.models.conditioners.entry import (
    FEATURE_NORMS,
    FeatureEntry,
    TextCondition,
    TextSource,
)
from lidit_jax.models.conditioners.infused import Infused

CONDITIONERS = {"direct": Direct, "infused": Infused}

__all__ = [
    "CONDITIONERS",
    "Conditioner",
    "ConditionerConfig",
    "TextCondition",
    "TextSource",
    "build",
]


class Conditioner(Protocol):
    """An nnx module: LLM features -> what the DiT attends to.

    uses_time: False = sampling calls it once, not at every step.
    keeps_tokens: whether a single LLM's i-th kept token becomes the i-th token, as `probe` needs.
    entries: one for each LLM; they hold the statistics of its features.
    """

    uses_time: bool
    keeps_tokens: bool
    entries: Sequence[FeatureEntry]

    def __call__(self, features: tuple[TextFeatures, ...], e_t_BxD) -> TextCondition:
        """Returns the condition, for an embedded time [B, D]."""

    @staticmethod
    def unused(config: "ConditionerConfig", llms: int) -> set[str]:
        """Returns the switches of a config that change nothing with this many LLMs."""


@dataclasses.dataclass(frozen=True)
class ConditionerConfig:
    """Which conditioner, and its switches (the ablations of Tables 2-6).

    name: "direct" (features projected, nothing else) or "infused" (refiners).
    feature_norm: "channel" standardises each channel of an LLM by its statistics over the data
      set; "rms" and "none" are the alternatives.
    The rest is for "infused" alone:
    n_ltr: linguistic token refiner blocks per LLM.
    gating: False fixes the refiner's gates at 1 (Table 5).
    ltr_mask: "full", or "causal" to keep the LLM's one-sided view (Table 3).
    fusion: with several LLMs, "refiner" (the collaborative refiner) or "concat" (Table 6).
    n_cr: collaborative refiner blocks.
    context: which tokens are averaged into the gates' context: "prompt", or "all" to include the
      instruction.
    """

    name: str = "infused"
    feature_norm: str = "channel"
    n_ltr: int = 2
    gating: bool = True
    ltr_mask: str = "full"
    fusion: str = "refiner"
    n_cr: int = 1
    context: str = "prompt"

    def __post_init__(self):
        for field in ("n_ltr", "n_cr"):
            errors.check_range(f"model.conditioner.{field}", getattr(self, field), 0)
        known = {
            "name": CONDITIONERS,
            "feature_norm": FEATURE_NORMS,
            "ltr_mask": ("full", "causal"),
            "fusion": ("refiner", "concat"),
            "context": ("prompt", "all"),
        }
        for field, names in known.items():
            if getattr(self, field) not in names:
                raise errors.unknown_name(f"model.conditioner.{field}", getattr(self, field), names)


def build(
    config: ConditionerConfig,
    sources: Sequence[TextSource],
    width: int,
    heads: int,
    *,
    dtype: layers.Dtype,
    scan: stacking.Scan,
    rngs: nnx.Rngs,
) -> nnx.Module:
    """Returns the conditioner that `config` names, for these LLMs and a DiT of `width`."""
    if not sources:
        raise errors.InputError("a conditioner needs at least one LLM; got none in text.use")
    return CONDITIONERS[config.name](
        config, sources, width, heads, dtype=dtype, scan=scan, rngs=rngs
    )
