"""Reads a data set with Grain as a sequence of `Batch`es, exactly resumable.

Every batch comes from one bin, which `Schedule` chooses by the step. The order of a bin's pictures
is a function of (seed, bin, epoch) alone, and a batch is a run of consecutive places in it: the
rest of an epoch begins the next batch. Each process reads the rows of the global batch that its
devices hold, so the batches are the same for any number of processes, and the iterator's state is
the number of batches drawn.
"""

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import grain
import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax import errors
from lidit_jax.batch import Batch, Int8Features, TextFeatures
from lidit_jax.data.dataset import Dataset, FeatureStore
from lidit_jax.data.plan import key_hash
from lidit_jax.data.records import BadRecord, ImageRecord
from lidit_jax.data.schedule import Schedule

Batches = grain.DatasetIterator  # endless, yields `Drawn`; a run resumes from its state

ATTEMPTS = 100  # rows to try as the replacement of one


@dataclass(frozen=True)
class Replaced:
    """A sample that could not be read, and the row that was read instead.

    place: in the global batch; row: the row that was due; key: its picture's, as far as known.
    """

    place: int
    row: int
    key: str
    used: int
    why: str


@dataclass(frozen=True)
class Drawn:
    """A batch, and which of its samples were replaced; its `row_B` has the rows actually read."""

    batch: Batch
    replaced: tuple[Replaced, ...] = ()


def padded_length(longest: int) -> int:
    """Returns the static length for `longest` tokens: a multiple of 8 up to 64, then 128 or 256.

    Beyond 256, it is `longest` itself.
    """
    if longest <= 64:
        return -(-longest // 8) * 8
    return next((n for n in (128, 256) if longest <= n), longest)


def pad_features(tokens: list[np.ndarray], length: int) -> TextFeatures:
    """Returns the kept tokens [S_i, E] of each prompt, padded to `length`, as `TextFeatures`."""
    mask_BxS = _mask(tokens, length)
    return TextFeatures(_pad(tokens, length), mask_BxS, mask_BxS)


def pad_stored(prompts: list[tuple[np.ndarray, ...]], length: int) -> TextFeatures | Int8Features:
    """Returns the arrays that `FeatureStore.stored` gives per prompt, padded to `length` tokens."""
    first, *others = (list(tokens) for tokens in zip(*prompts, strict=True))
    if not others:
        return pad_features(first, length)
    (scales,) = others
    return Int8Features(_pad(first, length), _pad(scales, length), _mask(first, length))


def _pad(tokens: list[np.ndarray], length: int) -> np.ndarray:
    """Returns arrays [S_i, ...] as [B, length, ...], padded with zeros on the right."""
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
        """Returns the id of the caption that this epoch shows of a picture: by hash, without state.

        With both kinds of caption, half of the epochs show a synthetic one (section 4.1: "we mix");
        captions of one kind are equally likely. Raises BadRecord for a picture without captions.
        """
        hashed = key_hash(f"{self.seed}/{image.key}/{epoch}")
        kinds = [ids for ids in (image.synthetic, image.captions) if ids]
        if not kinds:
            raise BadRecord(f"{image.key} has no caption", "has no caption", image.key)
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

        To be jitted: the devices do it in passing, and the host writes and sends a quarter as much.
        """
        return tuple(_states(f, store) for f, store in zip(text, self.stores, strict=True))

    def drawn(self, samples: list[tuple[int, int]], places: Sequence[int] | None = None) -> Drawn:
        """Returns the batch of these (row, epoch) pairs of one bin; unreadable rows are replaced.

        A row is replaced by another of its bin in the same epoch, chosen by (seed, row, attempt)
        alone: every process finds the same one, and the other samples stay as they are.
        places: the samples' places in the global batch; None: they are the whole batch.

        Raises InputError if neither a row nor any of `ATTEMPTS` others can be read.
        """
        try:
            return Drawn(self.batch(samples))
        except BadRecord:  # so rare that all rows may be read again to find the bad ones
            return self._mended(samples, range(len(samples)) if places is None else places)

    def batch(self, samples: list[tuple[int, int]]) -> Batch:
        """Returns the batch of these (row, epoch) pairs of one bin.

        Raises BadRecord if one cannot be read.
        """
        images = [self.dataset.image(row) for row, _ in samples]
        latents = np.stack([i.latent_HxWxC for i in images])
        captions = [self.caption(i, epoch) for i, (_, epoch) in zip(images, samples)]
        rows = np.asarray([row for row, _ in samples], np.int32)
        return Batch(latents_BxHxWxC=latents, text=self.text(captions), row_B=rows)

    def key(self, row: int) -> str:
        """Returns a picture's key, or a name for its row if the record cannot be read."""
        try:
            return self.dataset.image(row).key
        except BadRecord as e:
            return e.key or f"row {row} (unreadable)"

    def used(self, row: int, epoch: int) -> int:
        """Returns the row that `drawn` reads for this sample: itself, or its replacement."""
        try:
            self._check(row, epoch)
            return row
        except BadRecord as e:
            return self._instead(row, epoch, e)

    def readable(self, captions: list[int]) -> list[int]:
        """Returns the captions whose features can be read. Raises InputError if none can."""
        kept, first = [], None
        for caption in captions:
            try:
                for store in self.stores:
                    store.stored(caption)
                kept.append(caption)
            except BadRecord as e:
                first = first or e
        if first and not kept:
            raise first
        return kept

    def specs(self, batch_size: int, first: int, last: int) -> list[Batch]:
        """Returns the global batches possible at steps first to last - 1, one per bin.

        They are `jax.ShapeDtypeStruct`s, with restored features. Reads no record.
        """
        empty = [
            store.codec.stored(store.codec.pack(np.zeros((1, store.info["width"]), np.float32)))
            for store in self.stores
        ]
        text = tuple(map(pad_stored, ([tokens] for tokens in empty), self.lengths))

        def many(a):
            return jax.ShapeDtypeStruct((batch_size, *a.shape[1:]), a.dtype)

        restored = jax.eval_shape(self.restored, jax.tree.map(many, text))
        rows = jax.ShapeDtypeStruct((batch_size,), np.int32)
        shapes = self.dataset.latent_shapes
        return [
            Batch(jax.ShapeDtypeStruct((batch_size, *shapes[bin]), np.float32), restored, rows)
            for bin in _schedule(self.dataset).among(first, last)
        ]

    def _mended(self, samples: list[tuple[int, int]], places: Sequence[int]) -> Drawn:
        """Does what `drawn` does if some rows cannot be read."""
        read, replaced = [], []
        for place, (row, epoch) in zip(places, samples, strict=True):
            try:
                self._check(row, epoch)
                read.append((row, epoch))
            except BadRecord as e:
                used = self._instead(row, epoch, e)
                read.append((used, epoch))
                replaced.append(Replaced(place, row, e.key or self.key(row), used, e.why))
        return Drawn(self.batch(read), tuple(replaced))

    def _check(self, row: int, epoch: int):
        """Raises BadRecord if anything that an epoch shows of a row cannot be read."""
        image = self.dataset.image(row)
        caption = self.caption(image, epoch)
        for store in self.stores:
            try:
                store.stored(caption)
            except BadRecord as e:
                raise BadRecord(str(e), f"its caption's features: {e.why}", image.key) from e

    def _instead(self, row: int, epoch: int, error: BadRecord) -> int:
        """Returns the row that replaces one that cannot be read."""
        for other in itertools.islice(self._others(row), ATTEMPTS):
            try:
                self._check(other, epoch)
                return other
            except BadRecord:
                continue
        raise errors.InputError(
            f"{error}; none of {ATTEMPTS} other rows of its bin can be read instead"
        ) from error

    def _others(self, row: int) -> Iterator[int]:
        """Yields rows of a row's bin that may replace it, endlessly; itself may be among them."""
        rows = self.dataset.rows_of(self.dataset.bin_of(row))
        for attempt in itertools.count():
            yield rows[key_hash(f"{self.seed}/instead of {row}/{attempt}") % len(rows)]


def _schedule(dataset: Dataset) -> Schedule:
    return Schedule(tuple(dataset.counts))


def _states(features: TextFeatures | Int8Features, store: FeatureStore) -> TextFeatures:
    if isinstance(features, TextFeatures):
        return features
    states_BxSxE = store.codec.states(features.int8_BxSxE, features.scale_BxS)
    hidden_BxSxE = jnp.where(features.mask_BxS[..., None], states_BxSxE, 0)
    return TextFeatures(hidden_BxSxE, features.mask_BxS, features.mask_BxS)


class Order:
    """The rows of each batch of a run: known from the step alone, without reading a record."""

    def __init__(self, reader: Reader, batch_size: int):
        dataset = reader.dataset
        self._batch_size, self._schedule = batch_size, _schedule(dataset)
        self._rows = [dataset.rows_of(bin) for bin in range(len(dataset.counts))]
        self._orders = [
            grain.MapDataset.range(len(rows)).seed((reader.seed + bin) % 2**32).shuffle().repeat()
            for bin, rows in enumerate(self._rows)
        ]

    def samples(self, before: int, places: Sequence[int] | None = None) -> list[tuple[int, int]]:
        """Returns the (row, epoch) pairs at these places of a global batch; None: at all places.

        before: the number of batches before it, n - 1 for a run's step n. Unreadable rows are
        included: they are replaced when they are read.
        """
        bin, k = self._schedule(before)
        rows, order = self._rows[bin], self._orders[bin]
        first = k * self._batch_size
        places = range(self._batch_size) if places is None else places
        return [(rows[int(order[i])], i // len(rows)) for i in (first + p for p in places)]


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
    places = list(range(batch_size) if rows is None else map(int, rows))
    order = Order(reader, batch_size)

    def drawn(before: int) -> Drawn:
        return reader.drawn(order.samples(before, places), places)

    dataset = grain.MapDataset.range(sys.maxsize // batch_size).map(drawn)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    return iter(dataset.to_iter_dataset(options))
