"""Grain reads a data set back as one `Batch` after another, exactly resumable.

Every batch is of one bin, which `Schedule` chooses by the step. The order of a bin's pictures is a
function of (seed, bin, epoch) alone, and a batch is a run of consecutive places in it: what an
epoch leaves over begins the next batch. Each process reads the rows of the global batch that its
devices hold, so the batches are the same for any number of processes, and the iterator's state is
the number of batches drawn.
"""

import hashlib
import sys
from collections.abc import Sequence

import grain
import jax
import numpy as np

from lidit_jax.batch import Batch, TextFeatures
from lidit_jax.data.dataset import Dataset, FeatureStore
from lidit_jax.data.records import ImageRecord
from lidit_jax.data.schedule import Schedule


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

    def caption(self, image: ImageRecord, epoch: int) -> int:
        """Returns which of a picture's caption ids this epoch shows: by hash, without state.

        In half of the epochs a synthetic one, if there is one (section 4.1: "we mix"); then any of
        that kind.
        """
        name = f"{self.seed}/{image.key}/{epoch}".encode()
        hashed = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little")
        kinds = [ids for ids in (image.synthetic, image.captions) if ids]
        ids = kinds[hashed % len(kinds)]
        return ids[hashed // 2 % len(ids)]

    def text(self, captions: list[int]) -> tuple[TextFeatures, ...]:
        """Returns the features of these captions, one `TextFeatures` per LLM."""
        return tuple(
            pad_features([store[c] for c in captions], length)
            for store, length in zip(self.stores, self.lengths)
        )

    def batch(self, samples: list[tuple[int, int]]) -> Batch:
        """Returns the batch of these (row, epoch) pairs, rows of one bin."""
        images = [self.dataset.image(row) for row, _ in samples]
        latents = np.stack([i.latent_HxWxC for i in images])
        captions = [self.caption(i, epoch) for i, (_, epoch) in zip(images, samples)]
        rows = np.asarray([row for row, _ in samples], np.int32)
        return Batch(latents_BxHxWxC=latents, text=self.text(captions), row_B=rows)

    def specs(self, batch_size: int, first: int, last: int) -> list[Batch]:
        """Returns what a global batch may be at steps first to last - 1, of each bin one.

        As `jax.ShapeDtypeStruct`s, of the dtypes that are on disk.
        """
        counts = self.dataset.counts
        rows = [sum(counts[:bin]) for bin in Schedule(tuple(counts)).among(first, last)]

        def many(a):
            return jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype)

        return [jax.tree.map(many, self.batch([(row, 0)])) for row in rows]


def batches(
    reader: Reader,
    batch_size: int,
    *,
    rows: Sequence[int] | None = None,
    threads: int = 2,
) -> grain.DatasetIterator:
    """Returns an endless iterator over these rows of the global batches of `batch_size`; None: all."""
    counts = reader.dataset.counts
    schedule = Schedule(tuple(counts))
    first = np.concatenate([[0], np.cumsum(counts)])
    orders = [
        grain.MapDataset.range(n).seed((reader.seed + bin) % 2**32).shuffle().repeat()
        for bin, n in enumerate(counts)
    ]
    offsets = range(batch_size) if rows is None else [int(row) for row in rows]

    def samples(step: int) -> list[tuple[int, int]]:
        """Returns the (row, epoch) pairs of this process at a step."""
        bin, k = schedule(step)
        places = [k * batch_size + offset for offset in offsets]
        return [(int(first[bin] + orders[bin][i]), i // counts[bin]) for i in places]

    dataset = grain.MapDataset.range(sys.maxsize // batch_size).map(samples).map(reader.batch)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))
