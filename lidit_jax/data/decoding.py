"""Pictures are decoded here or in worker processes, in order, a named reason in place of what cannot be."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures

import numpy as np

from lidit_jax import errors
from lidit_jax.data.buckets import Size
from lidit_jax.data.sources.example import Picture
from lidit_jax.data.sources.images import ImageError

CHUNK = 16  # pictures that a worker is given at a time


@dataclasses.dataclass(frozen=True)
class Job:
    """A picture to be made at `size`; where `natural` is given, it must be found to be that large."""

    picture: Picture
    size: Size
    natural: Size | None = None


@dataclasses.dataclass(frozen=True)
class Decoded:
    """uint8 pixels [H, W, 3], and how the picture was mended; or None, and the reason why not."""

    pixels_HxWx3: np.ndarray | None
    notes: tuple[str, ...] = ()
    reason: str | None = None


def decode(job: Job) -> Decoded:
    """Makes one picture."""
    try:
        if job.natural is not None and job.picture.size() != tuple(job.natural):
            return Decoded(None, reason="R3-size")
        notes = job.picture.notes()
        return Decoded(job.picture.pixels(*job.size), notes)
    except ImageError as e:
        return Decoded(None, reason=e.reason)


def _decode_chunk(jobs: list[Job]) -> list[Decoded]:
    return [decode(job) for job in jobs]


Decode = Callable[[Iterable[Job]], Iterator[Decoded]]


@contextlib.contextmanager
def decoders(workers: int) -> Iterator[Decode]:
    """Yields what makes every job's picture, in their order: in so many processes, or, with 0, in this one.

    The processes start with the first jobs, once. It raises InputError if one of them dies.
    """
    if not workers:
        yield functools.partial(map, decode)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork of a process that runs JAX may hang
    with futures.ProcessPoolExecutor(workers, mp_context=spawn) as pool:
        yield functools.partial(_decoded, pool, workers)


def _decoded(
    pool: futures.ProcessPoolExecutor, workers: int, jobs: Iterable[Job]
) -> Iterator[Decoded]:
    jobs = iter(jobs)
    waiting: collections.deque[futures.Future] = collections.deque()
    try:
        while True:
            while len(waiting) < 3 * workers and (chunk := list(itertools.islice(jobs, CHUNK))):
                waiting.append(pool.submit(_decode_chunk, chunk))
            if not waiting:
                return
            yield from waiting.popleft().result()
    except futures.process.BrokenProcessPool as e:
        raise errors.InputError(
            f"a decoding process died, perhaps for want of memory; run again with fewer than {workers} data.workers"
        ) from e
    finally:
        for future in waiting:
            future.cancel()
