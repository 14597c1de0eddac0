"""Scores a run on images it is not trained on: the EMA's loss on a separate data set."""

import dataclasses
from collections.abc import Callable, Iterator

import jax
import numpy as np

from lidit_jax import errors, sharding
from lidit_jax.batch import Batch
from lidit_jax.training import opening, programs
from lidit_jax.training.feed import Feed
from lidit_jax.training.state import TrainState

NOT_COUNTED = -1  # instead of a row number


class HeldOut:
    """Scores states on every image of a run's held-out set, in batches the size of a micro-batch.

    Compiles on construction, so that compile or memory errors appear before the first step.

    alive: called after each program is compiled and each batch is scored.
    """

    def __init__(self, run: opening.Run, alive: Callable[[], None] = lambda: None):
        t, self._chief = run.config.train, jax.process_index() == 0
        self._reader, self._size = run.held_out, t.batch_size // t.accumulate
        self._feed = Feed(self._reader, run.mesh, self._size)
        self._places = sharding.rows_here(run.mesh, self._size)
        # Specs of every bin: this many steps draw from each bin.
        specs = self._reader.specs(self._size, 0, len(self._reader.dataset))
        tell = "held-out program" if self._chief else ""
        self._score = programs.compile_each(run.score(), run.like, specs, tell, alive)
        self._alive, self._unreadable = alive, 0

    def scores(
        self, state: TrainState, told_to_stop: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """Returns the mean of each metric over the readable images, each once; all must call it.

        told_to_stop: asked before each batch, on all processes alike; if True, returns None.

        Raises InputError if none can be read.
        """
        scored = []
        for rows in self._batches():
            if told_to_stop():
                return None
            scored.append(self._score(state, self._feed(self._read(rows))))
            # Otherwise all batches would be on the devices at once.
            jax.block_until_ready(scored[-2:-1])
            self._alive()
        joined = jax.tree.map(lambda *of_B: np.concatenate(of_B), *jax.device_get(scored))
        row_N, told = joined
        counted_N = row_N != NOT_COUNTED
        self._tell(int(counted_N.sum()))
        return {name: float(value_N[counted_N].mean(dtype=float)) for name, value_N in told.items()}

    def _batches(self) -> Iterator[list[int]]:
        """Yields the rows of each global batch, padded with its first row."""
        dataset = self._reader.dataset
        for bin in range(len(dataset.counts)):
            rows = dataset.rows_of(bin)
            for first in range(0, len(rows), self._size):
                some = rows[first : first + self._size]
                yield [*some, *[some[0]] * (self._size - len(some))]

    def _read(self, rows: list[int]) -> Batch:
        """Returns this process's rows of a batch; padding and replaced samples are not counted."""
        drawn = self._reader.drawn([(rows[place], 0) for place in self._places], self._places)
        instead = {replaced.place for replaced in drawn.replaced}
        filling = set(range(len(set(rows)), len(rows)))
        counts_B = [place not in instead | filling for place in self._places]
        row_B = np.where(counts_B, drawn.batch.row_B, NOT_COUNTED).astype(np.int32)
        return dataclasses.replace(drawn.batch, row_B=row_B)

    def _tell(self, counted: int):
        """Prints how many images cannot be read, if that changed. Raises InputError if none can."""
        folder, total = self._reader.dataset.folder, len(self._reader.dataset)
        if not counted:
            raise errors.InputError(f"none of the {total} pictures of {folder} can be read")
        if self._chief and total - counted != self._unreadable:
            self._unreadable = total - counted
            print(
                f"{self._unreadable} of the {total} pictures of {folder} cannot be read, and are "
                f"not in its loss",
                flush=True,
            )
