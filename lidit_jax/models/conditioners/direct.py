"""`direct`: the LLM's features, projected; the baseline "directly using LLMs" of Table 2."""

import dataclasses

from flax import nnx

from lidit_jax.models.conditioners.entry import FeatureEntry, TextCondition, concat_tokens


class Direct(nnx.Module):
    """tokens = Linear(norm(F)) at the kept tokens; several LLMs are concatenated along tokens."""

    uses_time = False
    keeps_tokens = True

    def __init__(self, config, sources, width, heads, *, dtype, scan, rngs):
        del heads, scan  # has no attention and no stack
        self.entries = nnx.List(
            [FeatureEntry(s, width, config.feature_norm, dtype=dtype, rngs=rngs) for s in sources]
        )

    def __call__(self, features, e_t_BxD) -> TextCondition:
        """Returns the projected prompt tokens; `e_t_BxD` is not used."""
        prompts = [f.prompt_only() for f in features]
        parts = [entry(f) for entry, f in zip(self.entries, prompts, strict=True)]
        return concat_tokens(parts, [f.keep_BxS for f in prompts])

    @staticmethod
    def unused(config, llms):
        return {f.name for f in dataclasses.fields(config)} - {"name", "feature_norm"}
