"""How fast batches are made of a data set's files, where the time goes, and what limits it.

The set is put out of the page cache and read once through, as training reads it, each row one time;
then a few batches again, step by step, in one thread, to see what each step costs the processor.
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

_SOUGHT = 256  # samples, at least, whose making is looked at step by step
_NEAR = 0.7  # of a limit: so near it, it is what limits
_SHARE_OF_PEAK = 0.5  # at which a chip is supposed to train


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be read: the made-up set in `folder`, by one of `hosts` that share each batch."""

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
                f"--rows={rows} are under four batches of {self.share}, a host's share of {batch_size}; "
                f"use --rows={32 * self.share}, or more --hosts"
            )

    @property
    def threads(self) -> int:
        return self.wanted.config.data.threads

    @property
    def share(self) -> int:
        """Samples of each batch that this host reads."""
        return self.wanted.config.train.batch_size // self.hosts

    def reader(self) -> Reader:
        """Returns a reader that remembers nothing of what another one read."""
        return made_up.opened(self.wanted, self.folder)


@dataclasses.dataclass(frozen=True)
class Stream:
    """A set read through. seconds: of each batch, by the clock; processor: of the whole, all threads.

    disk: bytes that came from disks, as the kernel counts them; None where it does not.
    """

    seconds: tuple[float, ...]
    processor: float
    disk: int | None

    @property
    def total(self) -> float:
        return sum(self.seconds)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What was found. Bytes and seconds are of one sample, unless said.

    share: samples of a batch; cores: that this process may use.
    stored: bytes in the files; given: bytes given to the device; read: bytes of what the model reads.
    parts: processor time of each step of making it, in one thread; whole: of all at once.
    restored: processor time of the device's part, where the device is a CPU.
    plain: bytes a second of the same files, read and thrown away.
    copied: bytes a second of a batch copied in memory by one thread.
    wanted: samples a second that one chip of a kind trains on, at half of its peak.
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
        """Samples a second."""
        return len(self.stream.seconds) * self.share / self.stream.total

    @property
    def busy(self) -> float:
        """Cores that were busy, on average."""
        return self.stream.processor / self.stream.total

    @property
    def rest(self) -> float:
        """Processor time that no part accounts for: Python between the steps, and chance."""
        return self.whole - sum(self.parts.values())

    @property
    def limits(self) -> dict[str, float]:
        """Samples a second that each limit would allow, if nothing else did."""
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
            return "the processor, busy beyond what the steps cost alone"
        if self.busy >= _NEAR * min(self.threads, self.cores):
            return f"{self.threads} threads; more data.threads may help"
        return (
            f"waiting: {self.busy:.1f} of {self.cores} cores were busy for it with {self.threads} threads. They "
            "waited for the disk, each other, or other programs of this machine"
        )

    def as_json(self) -> dict:
        """Returns the numbers, and what is made of them, as JSON can hold them."""
        made = ("rate", "busy", "rest", "limits", "limited_by")
        return dataclasses.asdict(self) | {name: getattr(self, name) for name in made}

    def table(self) -> str:
        """Returns a few lines for people."""
        low, median, high = np.percentile(self.stream.seconds, (10, 50, 90))
        count, disk = len(self.stream.seconds), self.stream.disk
        told = "unknown" if disk is None else f"{disk / self.stream.total / 1e6:,.0f} MB/s"
        lines = [
            f"{count} batches of {self.share}, {self.threads} threads, each row once, files not in the page cache",
            f"rate         {self.rate:,.1f} samples/s, {self.rate / self.share:.2f} batches/s",
            f"a batch      {median:.3f} s, four of five from {low:.3f} to {high:.3f} s",
            f"from disk    {told}; a sample has {self.stored / 1e3:,.0f} kB of files",
            f"to device    {self.rate * self.given / 1e6:,.0f} MB/s; a sample is given {self.given / 1e3:,.0f} kB, "
            f"of which the device makes {self.read / 1e3:,.0f} kB",
            f"processor    {self.busy:.2f} of {self.cores} cores busy",
            "",
            f"processor time of a sample, one thread, {self.whole * 1e3:.3f} ms, of that",
            *self._parts(),
            f"restored by the device {self.restored * 1e3:9.3f} ms more, if that is this processor",
            "",
            "samples/s that would be possible, if nothing else were in the way",
            f"  disk       {self.limits['disk']:9,.0f}  the files read plainly, {self.plain / 1e6:,.0f} MB/s",
            f"  memory     {self.limits['memory']:9,.0f}  a batch copied once, {self.copied / 1e6:,.0f} MB/s",
            f"  processor  {self.limits['processor']:9,.0f}  every core, no one else",
            f"limited by {self.limited_by}",
            "",
            "samples/s that a chip at half its peak trains on: "
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
    """Reads the set, which `made_up.write` has written, on the first device, and returns what was found."""
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
    """Returns (row, epoch) pairs of a few whole batches of the first bin, which has a third of the rows."""
    rows = min(max(_SOUGHT, asked.share), reader.dataset.counts[0])
    starts = range(0, rows - asked.share + 1, asked.share)
    return [[(start + i, 0) for i in range(asked.share)] for start in starts]


def _stream(asked: Asked, feed: Feed) -> Stream:
    """Reads as many whole batches as the set has rows for, each row once, from the disk."""
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
