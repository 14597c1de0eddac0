"""What is told of a run's steps: metrics, what went otherwise, its pulse. Every process has one; process 0's writes."""

import contextlib
import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

from lidit_jax import digests
from lidit_jax.data.pipeline import Replaced
from lidit_jax.training import checkpoints, ledger, metrics, opening, step_lines
from lidit_jax.training.bad_records import BadRecords
from lidit_jax.training.clock import Clock
from lidit_jax.training.pulse import Pulse


def tell_damaged(damaged: Sequence[tuple[pathlib.Path, str]], workdir: pathlib.Path, used: int):
    """Tells which checkpoints were moved aside, where to and why, and that step `used` is gone on from."""
    chief = jax.process_index() == 0
    with contextlib.closing(ledger.Ledger(workdir, used + 1, write=chief)) as book:
        for folder, why in damaged:
            book.row(used, "checkpoint", folder=str(folder), why=why)
            if chief:
                print(
                    f"a checkpoint is damaged: {why}; moved to {folder}; step {used} is used instead",
                    flush=True,
                )


class Logbook:
    """Reads the metrics of each step when the next one is queued, so that the devices never wait.

    clock: where the time goes.
    in_a_row: how many steps were skipped in a row by the last that was read.

    Args:
      run: which goes on from step `done`.
      saver: of its checkpoints; they have the means of the metrics.
      started: when this process began to work on it, in seconds since 1970.
      saved: what `state` was then; None for a run that begins.
    """

    def __init__(
        self,
        run: opening.Run,
        saver: checkpoints.Saver,
        done: int,
        started: float,
        saved: dict[str, Any] | None,
    ):
        t, chief, workdir = run.config.train, jax.process_index() == 0, run.workdir
        told = [line for line in step_lines.read(workdir / metrics.NAME) if line["step"] <= done]
        self.clock = Clock(started, told)
        self._ledger = ledger.Ledger(workdir, done + 1, write=chief)
        self._bad = BadRecords(run.config.data.bad_records, self._ledger, run.data)
        self._bad.set_state(saved["bad"] if saved else [])
        self._pulse = Pulse(workdir, t.watchdog_minutes)
        self._metrics = None
        if chief:
            so_far = saved["metrics"] if saved else None
            self._metrics = metrics.Metrics(workdir, done + 1, t.steps, t.batch_size, so_far)
            self._check_lines(saved["lines"] if saved else {}, done)
        self._run, self._saver = run, saver
        self._pending, self._drawn = None, {}
        self._steps = self.in_a_row = 0

    def state(self) -> dict[str, Any]:
        """Returns what a resumed run has to know, as JSON values; but "bad" on process 0 alone."""
        bad = {"bad": self._bad.state()}
        if not self._metrics:
            return bad
        return bad | {"metrics": self._metrics.state(), "lines": self._lines()}

    def queued(self, step: int, told: dict, replaced: Iterable[Replaced]):
        """Takes what a queued step is going to tell, and reads what the step before it has told.

        replaced: what this process could not read of its samples.
        """
        self._bad.saw(step, replaced)
        self._read()
        self._pending = step, told

    def flush(self):
        """Waits for the step that was queued last, and takes down all that the steps so far tell.

        Every process must call it. Raises, on every process alike, FloatingPointError if too many steps
        in a row were skipped, and InputError if too many samples could not be read.
        """
        self._read()
        self._bad.flush()

    def write(self, step: int):
        """Writes the means since the last time. Waits and raises as `flush`."""
        self.flush()
        facts = self.clock.read(self._steps) | self._saved()
        if self._metrics:
            self._metrics.log(step, facts, self._drawn)
        self._steps = 0

    def tell_saved(self, step: int):
        """Tells of the checkpoints that came to be on disk since the last writing."""
        facts = self._saved()
        if self._metrics:
            self._metrics.scalars(step, facts)

    def picture(self, step: int, grid_HxWx3: np.ndarray):
        """Writes a preview."""
        if self._metrics:
            self._metrics.picture(step, "preview", grid_HxWx3)

    def close(self):
        self._pulse.close()
        self._ledger.close()
        if self._metrics:
            self._metrics.close()

    def _lines(self) -> dict[str, int]:
        return {metrics.NAME: self._metrics.lines, ledger.NAME: self._ledger.count}

    def _check_lines(self, saved: dict[str, int], done: int):
        """Tells where a file has fewer lines of the steps up to `done` than were written."""
        for name, count in self._lines().items():
            if count < saved.get(name, 0):
                lost = saved[name] - count
                print(f"{name} has lost {lost} of its {saved[name]} lines up to step {done}")
                self._ledger.row(done, "lines", file=name, lost=lost, of=saved[name])

    def _read(self):
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
            return
        self._saver.add(told)
        if self._metrics:
            self._metrics.add(told)

    def _saved(self) -> dict[str, float]:
        """Prints a line for each checkpoint that has come to be on disk; returns what the last one took."""
        finished = self._saver.finished()
        for saved in finished if self._metrics else ():
            print(saved.line(), flush=True)
        return finished[-1].scalars() if finished else {}

    def _skip(self, step: int, told: dict):
        guard = self._run.config.guard
        judged = {name: float(told[name]) for name in ("loss", "grad_norm")}
        broken = [f"{name} is {x}" for name, x in judged.items() if not math.isfinite(x)]
        why = " and ".join(broken) or (
            f"loss {judged['loss']:.4g} or gradient norm {judged['grad_norm']:.4g} is more than "
            f"{guard.spike:g} deviations above the mean"
        )
        facts = {name: x if math.isfinite(x) else str(x) for name, x in judged.items()}
        keys = self._run.keys(step) if self._metrics else ()
        self._ledger.row(step, "skipped", why=why, in_a_row=self.in_a_row, **facts, keys=keys)
        if self._metrics:
            self._metrics.skip()
            print(
                f"step {step} is skipped: {why}; its samples are in {self._ledger.path}", flush=True
            )
        if self.in_a_row >= guard.patience:
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row were skipped, the last at step {step}: {why}. "
                f"{self._ledger.path} has their samples, and --replay={step} tells each one's loss; if no "
                f"sample is to blame, lower the learning rate"
            )
