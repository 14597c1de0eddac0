"""How fast batches are made of a data set's files, where the time goes, and what limits it.

A set is read once through, as training does, each row one time, its files first put out of the page
cache; then some of its rows again, step by step, in one thread, to see what each step costs.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import msgpack
import numpy as np

from lidit_jax import errors, sharding
from lidit_jax.batch import Batch
from lidit_jax.benchmarking import made_up
from lidit_jax.data import pipeline, records
from lidit_jax.data.dataset import FeatureStore
from lidit_jax.data.pipeline import Reader
from lidit_jax.training import loop

# The steps of making a batch, by what they are called in print.
RECORD, MSGPACK, CODEC, PADDING = "ArrayRecord", "msgpack", "codec", "padding"
LATENTS, CAPTION = "latents unpacked and stacked", "choice of a caption"
GIVEN, RESTORED = "given to the device", "restored on the device"
ON_DEVICE = (RESTORED,)  # not the host's, where the device is another
_SOUGHT = 256  # samples whose making is looked at step by step
_NEAR = 0.7  # of a limit: that near it, it is what limits


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be read: a made-up set in `folder`, by one of `hosts` that share a batch, with so many threads."""

    wanted: made_up.Made
    folder: pathlib.Path
    hosts: int = 32
    threads: int = 2

    def __post_init__(self):
        errors.check_range("--hosts", self.hosts, 1)
        errors.check_range("--threads", self.threads, 1)
        if self.wanted.rows < 4 * self.share:
            raise errors.InputError(
                f"--rows={self.wanted.rows} make under four batches of {self.share}, a host's share of "
                f"{self.wanted.config.train.batch_size}; use --rows={32 * self.share} or more --hosts"
            )

    @property
    def share(self) -> int:
        """Samples of a batch that this host reads. Raises InputError if hosts do not divide it."""
        batch_size = self.wanted.config.train.batch_size
        if batch_size % self.hosts:
            raise errors.InputError(
                f"train.batch_size {batch_size} does not divide over {self.hosts} hosts"
            )
        return batch_size // self.hosts


@dataclasses.dataclass(frozen=True)
class Stream:
    """A set read through. seconds: of each batch, by the clock; processor: of the whole, all threads.

    disk: bytes that came from the disk, as the kernel counts them; None where it does not.
    """

    seconds: tuple[float, ...]
    processor: float
    disk: int | None

    @property
    def total(self) -> float:
        return sum(self.seconds)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was found. Bytes and parts are of one sample.

    stored: bytes in the files; handed: bytes given to the device; restored: of the batch as the
      model reads it. parts: seconds of processor time of each step of making it, in one thread.
    whole: the same of all steps at once, by `Reader.batch` and the hand-over.
    plain: bytes a second of the same files, read from the disk and thrown away.
    copied: bytes a second of one batch copied in memory, one thread.
    cores: that this process may use.
    """

    share: int
    stream: Stream
    stored: float
    handed: float
    restored: float
    parts: dict[str, float]
    whole: float
    plain: float
    copied: float
    cores: int
    threads: int

    @property
    def rate(self) -> float:
        """Samples a second."""
        return len(self.stream.seconds) * self.share / self.stream.total

    @property
    def busy(self) -> float:
        """Cores that were busy, on average."""
        return self.stream.processor / self.stream.total

    @property
    def limits(self) -> dict[str, float]:
        """Samples a second that each limit would allow, if nothing else did."""
        return {
            "the disk, files read plainly": self.plain / self.stored,
            "memory, the batch copied once": self.copied / self.handed,
            "every core, at this processor time": self.cores / self.whole,
        }

    @property
    def rest(self) -> float:
        """Processor time of a sample that no part accounts for, in seconds."""
        return self.whole - sum(self.parts.values())

    @property
    def limited_by(self) -> str:
        """What limits the rate, in words."""
        part = max(self.parts, key=self.parts.__getitem__)
        most = f"{part}, {self.parts[part] / self.whole:.0%} of the processor time of a sample"
        near = [name for name, rate in self.limits.items() if self.rate >= _NEAR * rate]
        if near:
            return f"{near[0]}; {most}" if "core" in near[0] else near[0]
        if self.busy >= _NEAR * self.cores:
            return f"the processor, as contended as it is now; {most}"
        return (
            f"neither disk, memory nor processor alone: {self.busy:.1f} of {self.cores} cores were busy, so "
            f"threads wait, for the disk, each other or other processes; {most}"
        )


def measure(asked: Asked) -> Reading:
    """Reads the set, which `made_up.write` has written, and returns what was found."""
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    plain = _plain(asked.folder)
    batches, hand_over = _sought(asked), loop.HandOver(_opened(asked), mesh, asked.share)
    hand_over(_opened(asked).batch(batches[0]))  # compiled before it is timed
    forget(asked.folder)
    stream = _stream(asked, hand_over)
    parts = _parts(_opened(asked), batches, hand_over)
    whole, one = _whole(_opened(asked), batches, hand_over)
    reader = _opened(asked)
    return Reading(
        asked.share,
        stream,
        _stored(reader),
        _bytes(one) / len(one.row_B),
        _bytes(reader.specs(asked.share, 0, 1)[0]) / asked.share,
        parts,
        whole,
        plain,
        _copied(one),
        len(os.sched_getaffinity(0)),
        asked.threads,
    )


def forget(folder: pathlib.Path):
    """Puts the files of a folder out of the page cache, as far as the kernel does as it is advised."""
    for path in _files(folder):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        [*folder.glob("images/*/*.array_record"), *folder.rglob("features-*.array_record")]
    )


def _opened(asked: Asked) -> Reader:
    """Returns a reader that remembers nothing of what another one read."""
    return made_up.opened(asked.wanted, asked.folder)


def _sought(asked: Asked) -> list[list[tuple[int, int]]]:
    """Returns (row, epoch) pairs of a few whole batches of the first bin; of a smaller one, if it is small."""
    rows = min(_SOUGHT, _opened(asked).dataset.counts[0])
    size = min(asked.share, rows)
    return [[(first + i, 0) for i in range(size)] for first in range(0, rows - size + 1, size)]


def _bytes(tree: Any) -> int:
    return sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(tree))


def _stored(reader: Reader) -> float:
    """Returns the bytes of files that a sample has."""
    return sum(p.stat().st_size for p in _files(reader.dataset.folder)) / len(reader.dataset)


def _plain(folder: pathlib.Path) -> float:
    """Returns the bytes a second of the files, read one after the other in large blocks."""
    forget(folder)
    block, count, begun = bytearray(2**22), 0, time.perf_counter()
    for path in _files(folder):
        with open(path, "rb", buffering=0) as file:
            while got := file.readinto(block):
                count += got
    return count / (time.perf_counter() - begun)


def _copied(batch: Any) -> float:
    """Returns the bytes a second of the batch's arrays copied, to memory that was touched before."""
    arrays = [np.asarray(a) for a in jax.tree.leaves(batch)]
    copies = [a.copy() for a in arrays]
    rates = []
    for _ in range(5):
        begun = time.thread_time()
        for to, a in zip(copies, arrays):
            np.copyto(to, a)
        rates.append(_bytes(arrays) / (time.thread_time() - begun))
    return float(np.median(rates))


def _stream(asked: Asked, hand_over: loop.HandOver) -> Stream:
    """Reads as many whole batches as the set has rows for, each row once."""
    reader = _opened(asked)
    count = len(reader.dataset) // asked.share
    batches = pipeline.batches(reader, asked.share, threads=asked.threads)
    seconds, disk, processor = [], disk_bytes(), time.process_time()
    last = time.perf_counter()
    for _ in range(count):
        jax.block_until_ready(hand_over(next(batches)))
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    processor = time.process_time() - processor
    read = None if disk is None else disk_bytes() - disk
    return Stream(tuple(seconds), processor, read)


def disk_bytes() -> int | None:
    """Returns the bytes that this process had from a disk so far; None where the kernel does not tell."""
    try:
        lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["read_bytes"])


class _Clock:
    """Adds up the processor time of named steps, of all threads."""

    def __init__(self):
        self.seconds: dict[str, float] = {}

    def __call__(self, name: str, step: Callable[..., Any], *args) -> Any:
        begun = time.process_time()
        found = step(*args)
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - begun
        return found


def _parts(reader: Reader, batches: list, hand_over: loop.HandOver) -> dict[str, float]:
    """Returns the seconds of each step of a sample: the steps of `Reader.batch`, and the devices'."""
    clock = _Clock()
    for samples in batches:
        rows = [row for row, _ in samples]
        images, latents = _image_parts(clock, reader, rows)
        captions = clock(CAPTION, _each(lambda image: reader.caption(image, 0)), images)
        text = [_text_parts(clock, *pair, captions) for pair in zip(reader.stores, reader.lengths)]
        batch = Batch(latents, tuple(text), np.asarray(rows, np.int32))
        given = clock(GIVEN, lambda b: jax.block_until_ready(hand_over.given(b)), batch)
        clock(RESTORED, lambda b: jax.block_until_ready(hand_over.restored(b)), given)
    count = sum(map(len, batches))
    return {name: seconds / count for name, seconds in clock.seconds.items()}


def _image_parts(clock: _Clock, reader: Reader, rows: list[int]):
    packed = clock(RECORD, _each(reader.dataset.packed), rows)
    images = clock(LATENTS, _each(records.unpack_image), packed)
    return images, clock(LATENTS, lambda: np.stack([image.latent_HxWxC for image in images]))


def _text_parts(clock: _Clock, store: FeatureStore, length: int, captions: list[int]):
    packed = clock(RECORD, _each(store.packed), captions)
    fields = clock(MSGPACK, _each(msgpack.unpackb), packed)
    prompts = clock(CODEC, _each(store.codec.stored), fields)
    return clock(PADDING, pipeline.pad_stored, prompts, length)


def _each(step: Callable[[Any], Any]) -> Callable[[list], list]:
    return lambda values: [step(value) for value in values]


def _whole(reader: Reader, batches: list, hand_over: loop.HandOver) -> tuple[float, Batch]:
    """Returns the seconds of processor time of a sample, nothing in between, and the last batch."""
    begun = time.process_time()
    for samples in batches:
        batch = reader.batch(samples)
        jax.block_until_ready(hand_over(batch))
    return (time.process_time() - begun) / sum(map(len, batches)), batch
