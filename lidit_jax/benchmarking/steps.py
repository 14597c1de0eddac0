"""The cost of each step of making a batch: processor time in one thread, step by step."""

import time
from collections.abc import Callable
from typing import Any

import jax
import msgpack
import numpy as np

from lidit_jax.batch import Batch
from lidit_jax.data import pipeline, records
from lidit_jax.data.dataset import FeatureStore
from lidit_jax.data.pipeline import Reader
from lidit_jax.training.feed import Feed

RECORD, MSGPACK, CODEC = "ArrayRecord reads", "msgpack", "feature codec"
PADDING, LATENTS, CAPTION = "padding", "latents, unpacked and stacked", "choice of captions"
GIVEN = "given to the device"

Samples = list[tuple[int, int]]  # row and epoch of each


class _Clock:
    """Adds up the processor time of named steps, of all threads."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, step: Callable[..., Any], *args) -> Any:
        begun = time.process_time()
        found = step(*args)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begun
        return found


def parts(reader: Reader, batches: list[Samples], feed: Feed) -> dict[str, float]:
    """Returns the seconds per sample of each step of `Reader.batch`, and of the device transfer."""
    clock = _Clock()
    for samples in batches:
        rows = [row for row, _ in samples]
        images = [_image(clock, reader, row) for row in rows]
        latents = clock(LATENTS, lambda i: np.stack([image.latent_HxWxC for image in i]), images)
        captions = [clock(CAPTION, reader.caption, image, 0) for image in images]
        text = [_text(clock, *pair, captions) for pair in zip(reader.stores, reader.lengths)]
        batch = Batch(latents, tuple(text), np.asarray(rows, np.int32))
        clock(GIVEN, lambda b: jax.block_until_ready(feed.given(b)), batch)
    count = sum(map(len, batches))
    return {name: seconds / count for name, seconds in clock.seconds.items()}


def _image(clock: _Clock, reader: Reader, row: int) -> records.ImageRecord:
    return clock(LATENTS, records.unpack_image, clock(RECORD, reader.dataset.packed, row))


def _text(clock: _Clock, store: FeatureStore, length: int, captions: list[int]):
    prompts = []
    for caption in captions:
        fields = clock(MSGPACK, msgpack.unpackb, clock(RECORD, store.packed, caption))
        prompts.append(clock(CODEC, store.codec.stored, fields))
    return clock(PADDING, pipeline.pad_stored, prompts, length)


def whole(reader: Reader, batches: list[Samples], feed: Feed) -> float:
    """Returns the seconds per sample of making batches with `Reader.batch` and the transfer."""
    begun = time.process_time()
    for samples in batches:
        jax.block_until_ready(feed.given(reader.batch(samples)))
    return (time.process_time() - begun) / sum(map(len, batches))


def restored(batch: Batch, feed: Feed) -> float:
    """Returns the processor seconds per sample of restoring features, where the device is a CPU."""
    given, rounds = feed.given(batch), 3
    jax.block_until_ready(feed.restored(given))  # compiled before it is timed
    begun = time.process_time()
    for _ in range(rounds):
        jax.block_until_ready(feed.restored(given))
    return (time.process_time() - begun) / rounds / len(batch.row_B)


def copied(batch: Batch) -> float:
    """Returns the bytes per second at which one thread copies a batch into memory used before."""
    arrays = jax.tree.leaves(batch)
    copies = [a.copy() for a in arrays]
    taken = []
    for _ in range(5):
        begun = time.thread_time()
        for to, a in zip(copies, arrays):
            np.copyto(to, a)
        taken.append(time.thread_time() - begun)
    return size(batch) / float(np.median(taken))


def size(batch: Batch) -> int:
    """Returns the bytes of a batch's arrays."""
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(batch))
