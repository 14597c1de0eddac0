"""How a run does on pictures that it does not learn from: the EMA's loss on a data set of their own."""

from collections.abc import Callable, Iterator

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from lidit_jax import rng, sharding
from lidit_jax.batch import Batch
from lidit_jax.data.pipeline import Reader
from lidit_jax.training import programs, step
from lidit_jax.training.config import TrainConfig
from lidit_jax.training.feed import Feed
from lidit_jax.training.state import TrainState, shardings_of
from lidit_jax.training.tasks import Task

Score = Callable[[TrainState, Batch], dict[str, jax.Array]]
PREFIX = "held_out_"  # of the metrics' names


def make_score(task: Task, graphdef: nnx.GraphDef, mesh: Mesh, like: TrainState) -> Score:
    """Returns the jitted `score(state, batch) -> metrics`, f32 [B] each: "loss", and the task's own.

    Time and noise of a sample are drawn by its row alone: they are the same at every step and in every
    run, whatever its seed, batch size and mesh.
    """
    task = task.judging()

    def score(state: TrainState, batch: Batch):
        keys_B = rng.per_sample(rng.key(0, "held out"), batch.row_B)
        model = nnx.merge(graphdef, state.ema, state.constants)
        loss_B, parts = step.score(task, model, batch, keys_B, mesh)
        return {"loss": loss_B} | parts

    return jax.jit(
        score,
        in_shardings=(shardings_of(like), sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )


class HeldOut:
    """Scores states on every picture of a data set, each once, in batches as large as a micro-batch.

    Compiled when it is made: what does not compile, or does not fit, is told before the first step.
    """

    def __init__(
        self, score: Score, reader: Reader, mesh: Mesh, config: TrainConfig, like: TrainState
    ):
        self._reader, self._size = reader, config.batch_size // config.accumulate
        self._feed = Feed(reader, mesh, self._size)
        self._places = sharding.rows_here(mesh, self._size)
        specs = reader.specs(
            self._size, 0, len(reader.dataset)
        )  # by then every bin has had its turn
        tell = "held-out program" if jax.process_index() == 0 else ""
        self._score = programs.compile_each(score, like, specs, tell)
        self._damaged: set[int] = set()

    def scores(self, state: TrainState) -> dict[str, float]:
        """Returns the mean of each metric over the pictures, on every process; all must call it."""
        told, counts = [], []
        for rows, count in self._batches():
            told.append(self._score(state, self._feed(self._read(rows))))
            counts.append(count)
            jax.block_until_ready(told[-2:-1])  # or all batches would be on the devices at once
        told = jax.device_get(told)
        return {
            PREFIX + name: float(
                np.concatenate([of[name][:n] for of, n in zip(told, counts)]).mean(dtype=float)
            )
            for name in told[0]
        }

    def _batches(self) -> Iterator[tuple[list[int], int]]:
        """Yields the rows of each global batch, and how many of them are not there to fill it up."""
        for bin, pictures in enumerate(self._reader.dataset.counts):
            rows = self._reader.dataset.rows_of(bin)
            for first in range(0, pictures, self._size):
                filled = [rows[i % pictures] for i in range(first, first + self._size)]
                yield filled, min(self._size, pictures - first)

    def _read(self, rows: list[int]) -> Batch:
        """Returns this process' rows of a batch. What cannot be read is told once, and replaced."""
        drawn = self._reader.drawn([(rows[place], 0) for place in self._places], self._places)
        for replaced in drawn.replaced:
            if replaced.row not in self._damaged:
                self._damaged.add(replaced.row)
                print(
                    f"held-out picture {replaced.key} cannot be read: {replaced.why}; row {replaced.used} is "
                    f"scored instead",
                    flush=True,
                )
        return drawn.batch
