"""Grain reads a data set back as one `Batch` after another, exactly resumable.

The order of samples is a function of (seed, epoch) alone, and a global batch is a run of
consecutive places in it. Each process reads its own rows of the global batch, so the batches
are the same for any number of processes, and the iterator's state is the number of batches
drawn.
"""

import sys
import zlib

import grain
import numpy as np

from lidit_jax import errors
from lidit_jax.batch import Batch, TextFeatures
from lidit_jax.data.records import Dataset, FeatureStore


def padded_length(longest: int) -> int:
    """Returns the static number of tokens that holds `longest`: a multiple of 8 up to 64, then 128, 256."""
    if longest <= 64:
        return -(-longest // 8) * 8
    return next((n for n in (128, 256) if longest <= n), longest)


def pad_features(tokens: list[np.ndarray], length: int) -> TextFeatures:
    """Returns the kept tokens [S_i, E] of each prompt as one `TextFeatures` padded to `length` tokens."""
    hidden_BxSxE = np.zeros((len(tokens), length, tokens[0].shape[-1]), tokens[0].dtype)
    for row, t in zip(hidden_BxSxE, tokens):
        row[: len(t)] = t
    mask_BxS = np.arange(length) < np.asarray([len(t) for t in tokens])[:, None]
    return TextFeatures(hidden_BxSxE, mask_BxS, mask_BxS)


class Reader:
    """Rows of a data set, with every LLM's features, as batches."""

    def __init__(self, dataset: Dataset, stores: list[FeatureStore], seed: int):
        self.dataset, self.stores, self.seed = dataset, stores, seed
        self.lengths = [padded_length(store.info["longest"]) for store in stores]

    def caption(self, captions: tuple[int, ...], row: int, epoch: int) -> int:
        """Returns which of its caption ids row `row` shows in this epoch: by hash, without state."""
        return captions[zlib.crc32(f"{self.seed}/{row}/{epoch}".encode()) % len(captions)]

    def text(self, captions: list[int]) -> tuple[TextFeatures, ...]:
        """Returns the features of these captions, one `TextFeatures` per LLM."""
        return tuple(
            pad_features([store[c] for c in captions], length)
            for store, length in zip(self.stores, self.lengths)
        )

    def batch(self, samples: list[tuple[int, int]]) -> Batch:
        """Returns the batch of these (row, epoch) pairs."""
        images = [self.dataset.image(row) for row, _ in samples]
        latents = np.stack([self.dataset.normalised(i.latent_HxWxC) for i in images])
        captions = [self.caption(i.captions, *sample) for i, sample in zip(images, samples)]
        rows = np.asarray([row for row, _ in samples], np.int32)
        return Batch(latents_BxHxWxC=latents, text=self.text(captions), row_B=rows)


def batches(
    reader: Reader,
    batch_size: int,
    *,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
) -> grain.DatasetIterator:
    """Returns an endless iterator over this process' rows of the global batches.

    `iterator.get_state()` and `set_state(state)` save and restore its place.

    Raises InputError if the batch does not divide over the processes.
    """
    n = len(reader.dataset)
    if batch_size % process_count:
        raise errors.InputError(
            f"batch_size {batch_size} does not divide over {process_count} processes; "
            f"use {batch_size // process_count * process_count or process_count}"
        )
    order = grain.MapDataset.range(n).seed(reader.seed).shuffle().repeat()
    local = batch_size // process_count

    def sample(i: int) -> tuple[int, int]:
        """Returns (row, epoch) of this process' i-th sample, by its place among all processes' samples."""
        step, offset = divmod(i, local)
        place = step * batch_size + process_index * local + offset
        return int(order[place]), place // n

    places = grain.MapDataset.range(sys.maxsize // batch_size)
    dataset = places.map(sample).batch(local, batch_fn=reader.batch)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))
