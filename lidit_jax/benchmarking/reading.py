"""How fast batches are made from a data set's files, where the time goes, and what limits it.

The files are evicted from the page cache, and the data set is read as in training, each row once;
then a few batches again, step by step in one thread, for the processor time of each step.
"""

import dataclasses
import os
import pathlib
import time

import jax
import numpy as np

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import assumed, chips, flops, made_up, steps, storage
from lidit_jax.data import pipeline
from lidit_jax.data.pipeline import Reader
from lidit_jax.training.feed import Feed

_SOUGHT = 256  # samples, at least, that are made step by step
_NEAR = 0.7  # a rate above this share of a limit is limited by it
_SHARE_OF_PEAK = 0.5  # at which a chip is assumed to train


@dataclasses.dataclass(frozen=True)
class Asked:
    """What to read: the made-up data set in `folder`, by one of `hosts` that share each batch."""

    wanted: made_up.Made
    folder: pathlib.Path
    hosts: int = 32

    def __post_init__(self):
        errors.check_range("--hosts", self.hosts, 1)
        batch_size, rows = self.wanted.config.train.batch_size, self.wanted.rows
        if batch_size % self.hosts:
            raise errors.InputError(
                f"train.batch_size {batch_size} does not divide over --hosts={self.hosts}"
            )
        if rows < 4 * self.share:
            raise errors.InputError(
                f"--rows={rows} is less than four batches of {self.share}, a host's "
                f"share of {batch_size}; use --rows={32 * self.share}, or more --hosts"
            )

    @property
    def threads(self) -> int:
        return self.wanted.config.data.threads

    @property
    def share(self) -> int:
        """How many samples of each batch this host reads."""
        return self.wanted.config.train.batch_size // self.hosts

    def reader(self) -> Reader:
        """Returns a new reader, which shares no cache with other readers."""
        return made_up.opened(self.wanted, self.folder)


@dataclasses.dataclass(frozen=True)
class Stream:
    """One pass over a data set. seconds: wall time of each batch; processor: total, all threads.

    disk: bytes read from disks, as counted by the kernel; None if it does not count.
    """

    seconds: tuple[float, ...]
    processor: float
    disk: int | None

    @property
    def total(self) -> float:
        return sum(self.seconds)


@dataclasses.dataclass(frozen=True)
class Reading:
    """The results. Bytes and seconds are per sample, unless stated otherwise.

    share: samples of a batch; cores: number of cores that this process may use.
    stored: bytes in the files; given: bytes passed to the device; read: bytes that the model reads.
    parts: processor time of each step of making it, in one thread; whole: of all steps together.
    restored: processor time of the device's part, where the device is a CPU.
    plain: bytes per second of reading the same files and discarding them.
    copied: bytes per second of copying a batch in memory with one thread.
    wanted: chip -> samples per second that it trains on at half of its peak.
    """

    share: int
    cores: int
    threads: int
    stream: Stream
    stored: float
    given: float
    read: float
    parts: dict[str, float]
    whole: float
    restored: float
    plain: float
    copied: float
    wanted: dict[str, float]

    @property
    def rate(self) -> float:
        """Samples per second."""
        return len(self.stream.seconds) * self.share / self.stream.total

    @property
    def busy(self) -> float:
        """Average number of busy cores."""
        return self.stream.processor / self.stream.total

    @property
    def rest(self) -> float:
        """Processor time that no part accounts for: Python between the steps, and noise."""
        return self.whole - sum(self.parts.values())

    @property
    def limits(self) -> dict[str, float]:
        """Samples per second that each limit alone would allow."""
        return {
            "disk": self.plain / self.stored,
            "memory": self.copied / self.given,
            "processor": self.cores / self.whole,
        }

    @property
    def limited_by(self) -> str:
        """What limits the rate, in words."""
        lowest = min(self.limits, key=self.limits.__getitem__)
        if self.rate >= _NEAR * self.limits[lowest]:
            return f"the {lowest}"
        if self.busy >= _NEAR * self.cores:
            return "the processor, which is busier than the steps alone explain"
        if self.busy >= _NEAR * min(self.threads, self.cores):
            return f"{self.threads} threads; more data.threads may help"
        return (
            f"waiting: {self.busy:.1f} of {self.cores} cores were busy with {self.threads} "
            "threads, which waited for the disk, each other, or other programs on this machine"
        )

    def as_json(self) -> dict:
        """Returns the measured and derived numbers as JSON values."""
        made = ("rate", "busy", "rest", "limits", "limited_by")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in made}

    def table(self) -> str:
        """Returns the results as a few lines of text."""
        low, median, high = np.percentile(self.stream.seconds, (10, 50, 90))
        count, disk = len(self.stream.seconds), self.stream.disk
        told = "unknown" if disk is None else f"{disk / self.stream.total / 1e6:,.0f} MB/s"
        lines = [
            f"{count} batches of {self.share}, {self.threads} threads, "
            "each row once, files not in the page cache",
            f"rate         {self.rate:,.1f} samples/s, {self.rate / self.share:.2f} batches/s",
            f"a batch      {median:.3f} s, four of five from {low:.3f} to {high:.3f} s",
            f"from disk    {told}; a sample has {self.stored / 1e3:,.0f} kB of files",
            f"to device    {self.rate * self.given / 1e6:,.0f} MB/s; "
            f"a sample has {self.given / 1e3:,.0f} kB, "
            f"which the device turns into {self.read / 1e3:,.0f} kB",
            f"processor    {self.busy:.2f} of {self.cores} cores busy",
            "",
            f"processor time of a sample, one thread: {self.whole * 1e3:.3f} ms, consisting of",
            *self._parts(),
            f"restored by the device {self.restored * 1e3:9.3f} ms more, "
            "if the device is this processor",
            "",
            "samples/s that each limit alone would allow",
            f"  disk       {self.limits['disk']:9,.0f}  "
            f"the files read plainly, {self.plain / 1e6:,.0f} MB/s",
            f"  memory     {self.limits['memory']:9,.0f}  "
            f"a batch copied once, {self.copied / 1e6:,.0f} MB/s",
            f"  processor  {self.limits['processor']:9,.0f}  every core, no other programs",
            f"limited by {self.limited_by}",
            "",
            "samples/s that a chip trains on at half its peak: "
            + ", ".join(f"{chip} {rate:,.0f}" for chip, rate in self.wanted.items()),
        ]
        return "\n".join(lines)

    def _parts(self) -> list[str]:
        rows = self.parts | {"between them": self.rest}
        wide = max(map(len, rows))
        return [
            f"  {name:<{wide}}  {seconds * 1e3:8.3f} ms  {seconds / self.whole:4.0%}"
            for name, seconds in rows.items()
        ]


def measure(asked: Asked) -> Reading:
    """Reads the data set written by `made_up.write` onto the first device; returns the results."""
    reader = asked.reader()
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    feed = Feed(reader, mesh, asked.share)
    batches = _sought(asked, reader)
    one = reader.batch(batches[0])
    plain = [storage.read_plainly(asked.folder)]
    stream = _stream(asked, feed)
    plain.append(storage.read_plainly(asked.folder))
    size = storage.size(asked.folder)
    restored = steps.restored(one, feed)
    steps.parts(asked.reader(), batches[:1], feed)  # files in the page cache, memory touched
    return Reading(
        share=asked.share,
        cores=len(os.sched_getaffinity(0)),
        threads=asked.threads,
        stream=stream,
        stored=size / len(reader.dataset),
        given=steps.size(one) / asked.share,
        read=steps.size(reader.specs(asked.share, 0, 1)[0]) / asked.share,
        parts=steps.parts(asked.reader(), batches, feed),
        whole=steps.whole(asked.reader(), batches, feed),
        restored=restored,
        plain=2 * size / sum(plain),
        copied=steps.copied(one),
        wanted=_wanted(asked, reader),
    )


def _sought(asked: Asked, reader: Reader) -> list[steps.Samples]:
    """Returns (row, epoch) pairs of a few full batches of the first bin, 1/3 of the rows."""
    rows = min(max(_SOUGHT, asked.share), reader.dataset.counts[0])
    starts = range(0, rows - asked.share + 1, asked.share)
    return [[(start + i, 0) for i in range(asked.share)] for start in starts]


def _stream(asked: Asked, feed: Feed) -> Stream:
    """Reads as many full batches as the data set has rows for, each row once, from disk."""
    storage.forget(asked.folder)
    reader = asked.reader()
    batches = pipeline.batches(reader, asked.share, threads=asked.threads)
    seconds, disk, processor = [], storage.disk_bytes(), time.process_time()
    last = time.perf_counter()
    for _ in range(len(reader.dataset) // asked.share):
        jax.block_until_ready(feed.given(next(batches).batch))
        now = time.perf_counter()
        seconds.append(now - last)
        last = now
    processor = time.process_time() - processor
    read = None if disk is None else storage.disk_bytes() - disk
    return Stream(tuple(seconds), processor, read)


def _wanted(asked: Asked, reader: Reader) -> dict[str, float]:
    lengths = assumed.Lengths(text=max(reader.lengths))
    each = flops.training(flops.forward(assumed.task(asked.wanted.config, lengths)))
    return {name: _SHARE_OF_PEAK * chip.flops / each for name, chip in chips.CHIPS.items()}
