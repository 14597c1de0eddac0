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
from dataclasses import replace

import grain
import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax.batch import Batch, Int8Features, TextFeatures
from lidit_jax.data.dataset import Dataset, FeatureStore
from lidit_jax.data.records import ImageRecord
from lidit_jax.data.schedule import Schedule

Batches = grain.DatasetIterator  # endless; its state is what a run resumes from


def padded_length(longest: int) -> int:
    """Returns the static number of tokens that holds `longest`: a multiple of 8 up to 64, then 128, 256."""
    if longest <= 64:
        return -(-longest // 8) * 8
    return next((n for n in (128, 256) if longest <= n), longest)


def pad_features(tokens: list[np.ndarray], length: int) -> TextFeatures:
    """Returns the kept tokens [S_i, E] of each prompt as one `TextFeatures` padded to `length` tokens."""
    mask_BxS = _mask(tokens, length)
    return TextFeatures(_pad(tokens, length), mask_BxS, mask_BxS)


def pad_stored(prompts: list[tuple[np.ndarray, ...]], length: int) -> TextFeatures | Int8Features:
    """Returns what is stored of each prompt, by `FeatureStore.stored`, padded to `length` tokens."""
    first, *others = (list(tokens) for tokens in zip(*prompts, strict=True))
    if not others:
        return pad_features(first, length)
    (scales,) = others
    return Int8Features(_pad(first, length), _pad(scales, length), _mask(first, length))


def _pad(tokens: list[np.ndarray], length: int) -> np.ndarray:
    """Returns arrays [S_i, ...] as [B, length, ...], zeros on the right."""
    padded = np.zeros((len(tokens), length, *tokens[0].shape[1:]), tokens[0].dtype)
    for row, t in zip(padded, tokens):
        row[: len(t)] = t
    return padded


def _mask(tokens: list[np.ndarray], length: int) -> np.ndarray:
    return np.arange(length) < np.asarray([len(t) for t in tokens])[:, None]


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

    def text(self, captions: list[int]) -> tuple[TextFeatures | Int8Features, ...]:
        """Returns the features of these captions, per LLM, as they are stored."""
        return tuple(
            pad_stored([store.stored(c) for c in captions], length)
            for store, length in zip(self.stores, self.lengths)
        )

    def restored(self, text: tuple[TextFeatures | Int8Features, ...]) -> tuple[TextFeatures, ...]:
        """Returns the features of `text` as the model reads them: f32 of int8, zeros where padded.

        To be jitted: the devices do it in passing, and the host has a quarter to write and to send.
        """
        return tuple(_states(f, store) for f, store in zip(text, self.stores, strict=True))

    def batch(self, samples: list[tuple[int, int]]) -> Batch:
        """Returns the batch of these (row, epoch) pairs, rows of one bin."""
        images = [self.dataset.image(row) for row, _ in samples]
        latents = np.stack([i.latent_HxWxC for i in images])
        captions = [self.caption(i, epoch) for i, (_, epoch) in zip(images, samples)]
        rows = np.asarray([row for row, _ in samples], np.int32)
        return Batch(latents_BxHxWxC=latents, text=self.text(captions), row_B=rows)

    def specs(self, batch_size: int, first: int, last: int) -> list[Batch]:
        """Returns what a global batch may be at steps first to last - 1, of each bin one.

        As `jax.ShapeDtypeStruct`s, features restored.
        """
        counts = self.dataset.counts
        rows = [sum(counts[:bin]) for bin in Schedule(tuple(counts)).among(first, last)]

        def many(a):
            return jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype)

        stored = [jax.tree.map(many, self.batch([(row, 0)])) for row in rows]
        return [replace(b, text=jax.eval_shape(self.restored, b.text)) for b in stored]


def _states(features: TextFeatures | Int8Features, store: FeatureStore) -> TextFeatures:
    if isinstance(features, TextFeatures):
        return features
    states_BxSxE = store.codec.states(features.int8_BxSxE, features.scale_BxS)
    hidden_BxSxE = jnp.where(features.mask_BxS[..., None], states_BxSxE, 0)
    return TextFeatures(hidden_BxSxE, features.mask_BxS, features.mask_BxS)


def batches(
    reader: Reader,
    batch_size: int,
    *,
    rows: Sequence[int] | None = None,
    threads: int = 2,
) -> Batches:
    """Returns an endless iterator over these rows of the global batches of `batch_size`; None: all.

    threads: each makes one batch at a time, and twice as many batches are kept ready.
    """
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
