"""Reports a run's steps: metrics, incidents, heartbeat. Every process has one; 0's writes."""

import contextlib
import math
import pathlib
import time
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from lidit_jax import digests, sharding
from lidit_jax.data.pipeline import Replaced
from lidit_jax.training import checkpoints, opening
from lidit_jax.training.telemetry import ledger, metrics
from lidit_jax.training.telemetry.bad_records import BadRecords
from lidit_jax.training.telemetry.clock import Clock
from lidit_jax.training.telemetry.means import Means
from lidit_jax.training.telemetry.pulse import Pulse


def tell_damaged(workdir: pathlib.Path, used: int, folder: pathlib.Path, why: str):
    """Reports that a checkpoint is moved to `folder` and step `used` is resumed. For process 0."""
    with contextlib.closing(ledger.Ledger(workdir, used + 1)) as book:
        book.row_once(used, "checkpoint", folder=str(folder), why=why)
    print(
        f"a checkpoint is damaged: {why}; moved to {folder}; step {used} is used instead",
        flush=True,
    )


class Logbook:
    """Reads the metrics of each step when the next one is queued, so that the devices never wait.

    On a CPU, which runs a step while it is queued (`heap.compute_here`), it reads them at once.

    clock: where the time goes. in_a_row: steps skipped in a row up to the last one read.
    saved_at: the last step that was saved on schedule.

    Args:
      run: continues from step `done`.
      pulse: beats when a step has ended.
      started: when this process began to work on the run, in seconds since 1970.
      saved: the record of the checkpoint that the run resumes from; None for a new run.
    """

    def __init__(
        self, run: opening.Run, pulse: Pulse, done: int, started: float, saved: dict | None
    ):
        t, chief, workdir = run.config.train, jax.process_index() == 0, run.workdir
        saved = saved or {}
        self.clock = Clock(started, saved.get("clock"))
        self._ledger = ledger.Ledger(workdir, done + 1, write=chief)
        holders_B = sharding.holders(run.mesh, t.batch_size)
        self._bad = BadRecords(run.config.data.bad_records, self._ledger, run.data, holders_B)
        self._bad.set_state(saved.get("bad", ()))
        self._since_saved, self.saved_at = Means(saved.get("since")), saved.get("due", 0)
        self._metrics = None
        if chief:
            so_far = saved.get("metrics")
            self._metrics = metrics.Metrics(workdir, done + 1, t.steps, t.batch_size, so_far)
            self._check_lines(saved.get("lines", {}), done)
        self._run, self._pulse = run, pulse
        self._at_once = run.mesh.devices.flat[0].platform == "cpu"
        self._pending, self._drawn = None, {}
        self._steps = self.in_a_row = 0
        self._begun: dict[int, float] = {}  # of checkpoints, in seconds

    def queued(self, step: int, told: dict, replaced: Iterable[Replaced]):
        """Takes the future metrics of a queued step, and reads those of the previous one.

        replaced: the samples that this process could not read.
        """
        self.clock.queued(told["loss"])
        self._bad.saw(step, replaced)
        self._read()
        self._pending = step, told
        if self._at_once:
            self._read()

    def flush(self):
        """Waits for the step queued last, and writes everything about the steps so far.

        Every process must call it. Raises, on every process alike, FloatingPointError if too many
        steps in a row were skipped, and InputError if too many samples could not be read.
        """
        self._read()
        self._bad.flush()
        if self._metrics:
            self._metrics.flush()

    def write(self, step: int, saver: checkpoints.Saver):
        """Writes means since the last call and reports checkpoints; waits and raises as `flush`."""
        self.flush()
        facts = self.clock.read(self._steps) | self._saved(saver)
        if self._metrics:
            self._metrics.log(step, facts, self._drawn)
        self._steps = 0

    def scored(self, step: int, scores: dict[str, float]):
        """Writes the held-out scores of the state after a step."""
        if self._metrics:
            self._metrics.scored(step, scores)

    def for_checkpoint(self, step: int, due: bool, scores: dict[str, float]) -> dict[str, Any]:
        """Returns what a checkpoint's record holds about the steps so far, as JSON values.

        due: it is saved on schedule. Otherwise, when the run is stopped, it has no means, and its
        steps count toward the next checkpoint's, so that a stop changes neither which are the best
        nor when others are saved. scores: of the state itself, added to the means. Processes other
        than 0, whose records nobody reads, omit some entries.
        """
        means = {}
        if due:
            means, self._since_saved, self.saved_at = self._since_saved.read(), Means(), step
            means |= scores
        told = {"means": means, "since": self._since_saved.state(), "due": self.saved_at}
        told |= {"bad": self._bad.state(), "clock": self.clock.state()}
        if self._metrics:
            told |= {"metrics": self._metrics.state(), "lines": self._lines()}
            self._begun[step] = time.perf_counter()
        return told

    def tell_saved(self, step: int, saver: checkpoints.Saver):
        """Reports the checkpoints that reached the disk since the last write."""
        facts = self._saved(saver)
        if self._metrics:
            self._metrics.scalars(step, facts)

    def picture(self, step: int, grid_HxWx3: np.ndarray | None):
        """Writes a preview; only process 0 has one."""
        if self._metrics:
            self._metrics.picture(step, "preview", grid_HxWx3)

    def close(self):
        self.clock.close()
        self._ledger.close()
        if self._metrics:
            self._metrics.close()

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
        self._since_saved.add(told)
        if self._metrics:
            self._metrics.add(told)

    def _saved(self, saver: checkpoints.Saver) -> dict[str, float]:
        """Prints a line for each checkpoint that reached the disk; returns the last one's times."""
        finished = saver.finished()
        for saved in finished:
            self.clock.kept(self._begun.pop(saved.step))
            print(saved.line(), flush=True)
        return finished[-1].scalars() if finished else {}

    def _lines(self) -> dict[str, int]:
        return {metrics.NAME: self._metrics.lines, ledger.NAME: self._ledger.count}

    def _check_lines(self, saved: dict[str, int], done: int):
        """Reports each file with fewer lines of the steps up to `done` than were written."""
        for name, count in self._lines().items():
            if count < saved.get(name, 0):
                lost = saved[name] - count
                print(f"{name} has lost {lost} of its {saved[name]} lines up to step {done}")
                self._ledger.row_once(done, "lines", file=name, lost=lost, of=saved[name])

    def _skip(self, step: int, told: dict):
        guard = self._run.config.guard
        judged = {name: float(told[name]) for name in ("loss", "grad_norm")}
        broken = [f"{name} is {x}" for name, x in judged.items() if not math.isfinite(x)]
        why = " and ".join(broken) or (
            f"loss {judged['loss']:.4g} or gradient norm {judged['grad_norm']:.4g} is more than "
            f"{guard.spike:g} deviations above the mean"
        )
        facts = {name: x if math.isfinite(x) else str(x) for name, x in judged.items()}
        if self._metrics:
            self._metrics.skip()
            keys = self._run.keys(step)
            self._ledger.row(step, "skipped", why=why, in_a_row=self.in_a_row, **facts, keys=keys)
            print(
                f"step {step} is skipped: {why}; its samples are in {self._ledger.path}", flush=True
            )
        if self.in_a_row >= guard.patience:
            self._bad.flush()
            raise FloatingPointError(
                f"{self.in_a_row} steps in a row were skipped, the last at step {step}: {why}. "
                f"{self._ledger.path} has their samples, and --replay={step} prints each one's "
                f"loss; if no sample is to blame, start from this run's weights with a lower "
                f"learning rate: another --workdir, and "
                f"--config.train.init_from={self._run.workdir}"
            )
