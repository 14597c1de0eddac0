"""Decodes pictures in order, in this process or in workers; each failure gives a named reason."""

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

CHUNK = 16  # pictures sent to a worker at a time


@dataclasses.dataclass(frozen=True)
class Job:
    """A picture to be made at `size`; `natural`, if given, must equal the picture's own size."""

    picture: Picture
    size: Size
    natural: Size | None = None


@dataclasses.dataclass(frozen=True)
class Decoded:
    """uint8 pixels [H, W, 3] and how the picture was mended, or None and the reason."""

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
    """Yields a function that makes the jobs' pictures in order, in `workers` processes (0: here).

    The processes start once, with the first jobs. The function raises InputError if one dies.
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
            f"a decoding process died, perhaps because memory ran out; "
            f"run again with fewer than {workers} data.workers"
        ) from e
    finally:
        for future in waiting:
            future.cancel()
