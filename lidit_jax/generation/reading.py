"""A run's frozen LLMs encode prompts as a stream, with only a window of it in memory."""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from flax import nnx

from lidit_jax.batch import TextFeatures
from lidit_jax.data.pipeline import pad_features, padded_length
from lidit_jax.text import instruct, llm
from lidit_jax.text.encode import encode_captions
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.inputs import check_reads_alike

Features = tuple[np.ndarray, ...]  # of one prompt: f32 [S, E] from each LLM


class Readers:
    """The LLMs of a run. Each is loaded when a prompt first needs it.

    encoders: of the run's config. constants: of its model, to identify the LLMs.
    """

    def __init__(self, encoders: Sequence[EncoderConfig], constants: nnx.State):
        self.encoders, self._constants = tuple(encoders), constants
        self._loaded: dict[int, llm.FrozenLLM] = {}

    def lengths(self, texts: Iterable[str]) -> tuple[int, ...]:
        """Returns a padded length in tokens that fits every text, one for each LLM.

        Texts are tokenized, not encoded. Logs how many of them an LLM truncates.
        """
        texts = list(texts)
        return tuple(self._length(reader, texts) for reader in self._all())

    def _length(self, reader: llm.FrozenLLM, texts: list[str]) -> int:
        longest, cut, example = 0, 0, ""
        for text in texts:
            ids, truncated = reader.tokenize(text)
            longest, cut = max(longest, len(ids)), cut + truncated
            example = example or (text if truncated else "")
        instruct.warn_truncated(reader.config, cut, len(texts), example)
        return padded_length(longest)

    def read(self, texts: Iterable[str]) -> Iterator[Features]:
        """Yields the features of each text, in order; texts are consumed as needed.

        Features do not depend on the other texts, except in the last bits of f32.
        """
        readers = self._all()
        streams = [
            encode_captions(
                reader, part, static_length=None if reader.dtype == "float32" else padded_length
            )
            for reader, part in zip(readers, itertools.tee(texts, len(readers)))
        ]
        for features in zip(*streams, strict=True):
            yield tuple(f.hidden_SxE for f in features)

    def _all(self) -> list[llm.FrozenLLM]:
        return [self._reader(i) for i in range(len(self.encoders))]

    def _reader(self, i: int) -> llm.FrozenLLM:
        """Returns LLM i, loaded once; InputError if the run was trained with a different one."""
        if i not in self._loaded:
            loaded = llm.load(self.encoders[i], llm.default_cache())
            check_reads_alike(loaded, self._constants["text"][i])
            self._loaded[i] = loaded
        return self._loaded[i]


def padded(rows: Sequence[Features], lengths: tuple[int, ...]) -> tuple[TextFeatures, ...]:
    """Returns prompts' features as one `TextFeatures` per LLM, padded to `lengths` tokens."""
    return tuple(pad_features(list(of_llm), n) for of_llm, n in zip(zip(*rows), lengths))
