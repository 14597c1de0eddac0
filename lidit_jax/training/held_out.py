"""How a run does on pictures that it does not learn from: the EMA's loss on a data set of their own."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np

from lidit_jax import errors, sharding
from lidit_jax.batch import Batch
from lidit_jax.training import opening, programs
from lidit_jax.training.feed import Feed
from lidit_jax.training.state import TrainState

NOT_COUNTED = -1  # in the place of a row


class HeldOut:
    """Scores states on every picture of a run's held-out set, in batches as large as a micro-batch.

    Compiled when it is made: what does not compile, or does not fit, is told before the first step.

    alive: is called after each program that is compiled, and each batch that is scored.
    """

    def __init__(self, run: opening.Run, alive: Callable[[], None] = lambda: None):
        t, self._chief = run.config.train, jax.process_index() == 0
        self._reader, self._size = run.held_out, t.batch_size // t.accumulate
        self._feed = Feed(self._reader, run.mesh, self._size)
        self._places = sharding.rows_here(run.mesh, self._size)
        # Of every bin: as many steps as there are pictures have drawn from each.
        specs = self._reader.specs(self._size, 0, len(self._reader.dataset))
        tell = "held-out program" if self._chief else ""
        self._score = programs.compile_each(run.score(), run.like, specs, tell, alive)
        self._alive, self._unreadable = alive, 0

    def scores(
        self, state: TrainState, told_to_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Returns the mean of each metric over the pictures that can be read, each once; all must call it.

        told_to_stop: asked before each batch, on all processes alike; then there is None.

        Raises InputError if none can be read.
        """
        scored = []
        for rows in self._batches():
            if told_to_stop():
                return None
            scored.append(self._score(state, self._feed(self._read(rows))))
            # Or all batches would be on the devices at once.
            jax.block_until_ready(scored[-2:-1])
            self._alive()
        joined = jax.tree.map(lambda *of_B: np.concatenate(of_B), *jax.device_get(scored))
        row_N, told = joined
        counted_N = row_N != NOT_COUNTED
        self._tell(int(counted_N.sum()))
        return {name: float(value_N[counted_N].mean(dtype=float)) for name, value_N in told.items()}

    def _batches(self) -> Iterator[list[int]]:
        """Yields the rows of each global batch; where it must be filled up, its first row again."""
        dataset = self._reader.dataset
        for bin in range(len(dataset.counts)):
            rows = dataset.rows_of(bin)
            for first in range(0, len(rows), self._size):
                some = rows[first : first + self._size]
                yield [*some, *[some[0]] * (self._size - len(some))]

    def _read(self, rows: list[int]) -> Batch:
        """Returns this process' rows of a batch, of which some are not counted: they fill it up, or stand for others."""
        drawn = self._reader.drawn([(rows[place], 0) for place in self._places], self._places)
        instead = {replaced.place for replaced in drawn.replaced}
        filling = set(range(len(set(rows)), len(rows)))
        counts_B = [place not in instead | filling for place in self._places]
        row_B = np.where(counts_B, drawn.batch.row_B, NOT_COUNTED).astype(np.int32)
        return dataclasses.replace(drawn.batch, row_B=row_B)

    def _tell(self, counted: int):
        """Tells, where it has changed, how many of the pictures cannot be read. Raises InputError if none can."""
        folder, total = self._reader.dataset.folder, len(self._reader.dataset)
        if not counted:
            raise errors.InputError(f"none of the {total} pictures of {folder} can be read")
        if self._chief and total - counted != self._unreadable:
            self._unreadable = total - counted
            print(
                f"{self._unreadable} of the {total} pictures of {folder} cannot be read, and are not in its loss",
                flush=True,
            )
