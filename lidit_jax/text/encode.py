"""Encodes many captions with one frozen LLM: a stream of features, and their statistics."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.moments import Moments
from lidit_jax.text import instruct

if TYPE_CHECKING:
    from lidit_jax.text.llm import FrozenLLM

# Captions are sorted by length within a window of this many batches; one window is in memory.
_WINDOW = 16

# A channel's std is at least this fraction of the median channel's, so that a channel that never
# varied in the data set cannot blow up on a prompt where it does. Real channels lie far above it.
STD_FLOOR = 0.01
BATCH = 32  # captions that an LLM reads at once


@dataclasses.dataclass(frozen=True)
class Features:
    """One caption's features: f32 [S, E] at its prompt and end tokens, and whether the caption was
    cut.
    """

    hidden_SxE: np.ndarray
    truncated: bool


def encode_captions(
    llm: "FrozenLLM",
    texts: Iterable[str],
    batch_size: int = BATCH,
    progress: Callable[[int], Any] = lambda count: None,
    static_length: Callable[[int], int] | None = None,
) -> Iterator[Features]:
    """Yields the features of each text, in the order of `texts`, which may be a long stream.

    `progress` is called with the number of texts finished since its last call, e.g.
    `tqdm().update`.
    static_length: see `FrozenLLM.encode_ids`.
    Raises InputError for features that are not finite.
    """
    texts = iter(texts)
    while window := list(itertools.islice(texts, _WINDOW * batch_size)):
        kept, cut = zip(*map(llm.tokenize, window), strict=True)
        hidden = llm.encode_ids(kept, batch_size, static_length)
        for text, hidden_SxE, truncated in zip(window, hidden, cut, strict=True):
            if not np.isfinite(hidden_SxE).all():
                raise InputError(
                    f"the features of {text!r} are not finite: "
                    "the LLM's weights are damaged; get a complete copy"
                )
            yield Features(hidden_SxE, truncated)
        progress(len(window))


class ChannelStatistics:
    """Mean and std per channel over all kept tokens, gathered one caption at a time.

    The attention sink, the first token of a causal LLM's sequence, belongs to the prefix and so is
    never among the kept tokens.
    """

    def __init__(self, width: int):
        self.captions = self.longest = self.truncated = 0
        self.example = ""  # the first caption that was cut
        self._moments = Moments(width)

    def add(self, text: str, features: Features) -> None:
        self._moments.add(features.hidden_SxE)
        self.captions, self.longest = self.captions + 1, max(self.longest, len(features.hidden_SxE))
        if features.truncated:
            self.truncated += 1
            self.example = self.example or text

    def to_json(self) -> dict[str, Any]:
        """Returns all statistics, for `merge`."""
        counted = ("captions", "longest", "truncated", "example")
        return {"moments": self._moments.to_json()} | {n: getattr(self, n) for n in counted}

    def merge(self, part: dict[str, Any]) -> None:
        """Adds the statistics of other captions."""
        self._moments.merge(part["moments"])
        self.captions += part["captions"]
        self.truncated += part["truncated"]
        self.longest = max(self.longest, part["longest"])
        self.example = self.example or part["example"]

    @property
    def tokens(self) -> int:
        return self._moments.count

    @property
    def width(self) -> int:
        return len(self.mean_E)

    @property
    def mean_E(self) -> np.ndarray:
        return self._moments.mean_C

    @property
    def std_E(self) -> np.ndarray:
        """The standard deviation, as `floored`."""
        return floored(self._moments.std_C)


def floored(std_E: np.ndarray) -> np.ndarray:
    """Returns the stds, but at least `STD_FLOOR` x the median; if that is 0, zeros become 1."""
    floor = STD_FLOOR * np.median(std_E)
    return np.where(std_E > 0, np.maximum(std_E, floor), floor or 1.0)


def identity(llm: "FrozenLLM") -> dict[str, Any]:
    """Returns what determines a feature: the weights, the layer, and what surrounds a prompt."""
    config = llm.config
    return {
        "model_hash": llm.weights.sha256,
        "dtype": llm.dtype,
        "layer": config.layer,
        "template_hash": instruct.template_hash(llm.prefix_ids, llm.suffix_ids, config.layer),
        "max_prompt_tokens": config.max_prompt_tokens,
    }


def describe(config: instruct.EncoderConfig, stats: ChannelStatistics) -> dict[str, Any]:
    """Returns the entries of encoder.json about the captions, and warns if some were cut."""
    instruct.warn_truncated(config, stats.truncated, stats.captions, stats.example)
    return {
        "model": config.model,
        "instruction": config.instruction,
        "template": config.template,
        "width": stats.width,
        "captions": stats.captions,
        "longest": stats.longest,
        "truncated": stats.truncated,
        "mean": stats.mean_E.tolist(),
        "std": stats.std_E.tolist(),
    }
