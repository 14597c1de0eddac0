"""Many captions through one frozen LLM: a stream of features, its statistics, its description."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lidit_jax.text import instruct

if TYPE_CHECKING:
    from lidit_jax.text.llm import FrozenLLM

# Captions are sorted by length within a window of this many batches; a window is what sits in memory.
_WINDOW = 16

# A channel's std is at least this fraction of the median channel's, so that a channel that never
# varied in the data set cannot blow up on a prompt where it does. Real channels lie far above it.
STD_FLOOR = 0.01


@dataclasses.dataclass(frozen=True)
class Features:
    """One caption's features: f32 [S, E] at its prompt and end tokens, and whether the caption was cut."""

    hidden_SxE: np.ndarray
    truncated: bool


def encode_captions(
    llm: "FrozenLLM",
    texts: Iterable[str],
    batch_size: int = 32,
    progress: Callable[[int], Any] = lambda count: None,
) -> Iterator[Features]:
    """Yields the features of each text, in the order of `texts`, which may be a long stream.

    `progress` is called with the number of texts finished since its last call, e.g. `tqdm().update`.
    """
    texts = iter(texts)
    while window := list(itertools.islice(texts, _WINDOW * batch_size)):
        kept, cut = zip(*map(llm.tokenize, window), strict=True)
        for hidden_SxE, truncated in zip(llm.encode_ids(kept, batch_size), cut, strict=True):
            yield Features(hidden_SxE, truncated)
        progress(len(window))


class ChannelStatistics:
    """Mean and std per channel over all kept tokens, gathered one caption at a time in f64.

    The attention sink, the first token of a causal LLM's sequence, belongs to the prefix and so is
    never among the kept tokens. Sums are merged as centred moments (Chan et al., 1979), which
    a channel with a large mean does not ruin.
    """

    def __init__(self, width: int):
        self.captions = self.tokens = self.longest = self.truncated = 0
        self.example = ""  # the first caption that was cut
        self.mean_E = np.zeros(width)
        self._m2_E = np.zeros(width)

    def add(self, text: str, features: Features) -> None:
        """Raises ValueError on features that are not finite."""
        x_SxE = features.hidden_SxE.astype(np.float64)
        if not np.isfinite(x_SxE).all():
            raise ValueError(
                f"the features of {text!r} are not finite; are the LLM's weights damaged?"
            )
        S = len(x_SxE)
        mean_E = x_SxE.mean(0)
        delta_E = mean_E - self.mean_E
        total = self.tokens + S
        self._m2_E += ((x_SxE - mean_E) ** 2).sum(0) + delta_E**2 * self.tokens * S / total
        self.mean_E += delta_E * S / total
        self.tokens, self.captions, self.longest = total, self.captions + 1, max(self.longest, S)
        if features.truncated:
            self.truncated += 1
            self.example = self.example or text

    @property
    def std_E(self) -> np.ndarray:
        """The standard deviation, floored at `STD_FLOOR` of the median channel's; 1 where nothing varies."""
        std_E = np.sqrt(self._m2_E / max(self.tokens, 1))
        floor = STD_FLOOR * np.median(std_E) or 1.0
        return np.maximum(std_E, floor)


def identity(llm: "FrozenLLM") -> dict[str, Any]:
    """Returns what decides a feature: the weights, the layer, and everything put around a prompt."""
    config = llm.config
    return {
        "model_hash": llm.model_hash,
        "dtype": llm.dtype,
        "layer": config.layer,
        "template_hash": instruct.template_hash(llm.prefix_ids, llm.suffix_ids, config.layer),
        "max_prompt_tokens": config.max_prompt_tokens,
    }


def describe(llm: "FrozenLLM", stats: ChannelStatistics) -> dict[str, Any]:
    """Returns what encoder.json holds, and warns when captions were cut."""
    config = llm.config
    instruct.warn_truncated(config, stats.truncated, stats.captions, stats.example)
    return identity(llm) | {
        "model": config.model,
        "instruction": config.instruction,
        "template": config.template,
        "width": llm.width,
        "prefix_len": len(llm.prefix()),
        "captions": stats.captions,
        "longest": stats.longest,
        "truncated": stats.truncated,
        "mean": stats.mean_E.tolist(),
        "std": stats.std_E.tolist(),
        "codec": "bf16",
    }
