"""What is told of a run's steps: metrics, skipped steps, its pulse. Every process has one; process 0's writes."""

import contextlib
import math
from collections.abc import Iterable, Iterator

import jax
import numpy as np

from lidit_jax import digests
from lidit_jax.data.pipeline import Replaced
from lidit_jax.training import metrics, opening, step_lines
from lidit_jax.training.bad_records import BadRecords
from lidit_jax.training.clock import Clock
from lidit_jax.training.ledger import Ledger
from lidit_jax.training.pulse import Pulse


@contextlib.contextmanager
def opened(run: opening.Run, done: int, started: float, bad_rows: list[int]) -> Iterator["Logbook"]:
    """Yields the logbook of a run that goes on from step `done`.

    started: when this process began to work on it, in seconds since 1970. bad_rows: of the data set,
      that were replaced so far.
    """
    t, chief = run.config.train, jax.process_index() == 0
    lines = [line for line in step_lines.read(run.workdir / metrics.NAME) if line["step"] <= done]
    ledger = Ledger(run.workdir, done + 1, write=chief)
    bad = BadRecords(run.config.data.bad_records, ledger, run.data)
    bad.set_state(bad_rows)
    log = Logbook(
        Clock(started, lines),
        ledger,
        bad,
        Pulse(run.workdir, t.watchdog_minutes),
        metrics.Metrics(run.workdir, done + 1, t.steps, t.batch_size) if chief else None,
        run,
    )
    try:
        yield log
    finally:
        log.close()


class Logbook:
    """Reads the metrics of each step when the next one is queued, so that the devices never wait.

    bad: the samples that were replaced.
    numbers: where metrics go; None on all processes but one.
    in_a_row: how many steps were skipped in a row by the last that was read.
    """

    def __init__(
        self, clock: Clock, ledger: Ledger, bad: BadRecords, pulse: Pulse,
        numbers: metrics.Metrics | None, run: opening.Run,
    ):  # fmt: skip
        self.clock, self.ledger, self.bad = clock, ledger, bad
        self._pulse, self._metrics, self._run = pulse, numbers, run
        self._pending, self._drawn = None, {}
        self._steps = self._skipped = self.in_a_row = 0

    def queued(self, step: int, told: dict, replaced: Iterable[Replaced]):
        """Takes what a queued step is going to tell, and reads what the step before it has told.

        replaced: what this process could not read of its samples.
        """
        self.bad.saw(step, replaced)
        self.read()
        self._pending = step, told

    def read(self):
        """Waits for the step that was queued last, and takes down what it tells.

        Raises FloatingPointError, on every process alike, if too many steps in a row were skipped.
        """
        if self._pending is None:
            return
        (step, told), self._pending = self._pending, None
        told = jax.device_get(told)
        self._pulse.beat(step)
        self._steps += 1
        self.in_a_row = int(told.pop("skipped"))
        self._drawn = {name: digests.in_hex(told.pop(name)) for name in ("batch", "noise")}
        if self.in_a_row:
            self._skip(step, told)
        elif self._metrics:
            self._metrics.add(told)

    def flush(self):
        """Takes down all that the steps so far tell. Every process must call it.

        Raises InputError, on every process alike, if too many samples could not be read.
        """
        self.read()
        self.bad.flush()

    def write(self, step: int):
        """Writes the means since the last time."""
        self.flush()
        facts = self.clock.read(self._steps)
        if self._metrics:
            self._metrics.log(step, facts | {"skipped": self._skipped}, self._drawn)
        self._steps = self._skipped = 0

    def picture(self, step: int, grid_HxWx3: np.ndarray):
        """Writes a preview."""
        if self._metrics:
            self._metrics.picture(step, "preview", grid_HxWx3)

    def close(self):
        self._pulse.close()
        self.ledger.close()
        if self._metrics:
            self._metrics.close()

    def _skip(self, step: int, told: dict):
        self._skipped, guard = self._skipped + 1, self._run.config.guard
        judged = {name: float(told[name]) for name in ("loss", "grad_norm")}
        broken = [
            f"{name} is {value}" for name, value in judged.items() if not math.isfinite(value)
        ]
        why = " and ".join(broken) or (
            f"loss {judged['loss']:.4g} or gradient norm {judged['grad_norm']:.4g} is more than "
            f"{guard.spike:g} deviations above the mean"
        )
        facts = {
            name: value if math.isfinite(value) else str(value) for name, value in judged.items()
        }
        self.ledger.row(
            step, "skipped", why=why, in_a_row=self.in_a_row, **facts, keys=self._run.keys(step)
        )
        if self._metrics:
            print(
                f"step {step} is skipped: {why}; its samples are in {self.ledger.path}", flush=True
            )
        if self.in_a_row >= guard.patience:
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row were skipped, the last at step {step}: {why}. "
                f"{self.ledger.path} has their samples, and --replay={step} tells each one's loss; if no "
                f"sample is to blame, lower the learning rate"
            )
