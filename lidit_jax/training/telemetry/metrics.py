"""Where a run's numbers go: the console, TensorBoard's events and a JSON-lines file."""

import pathlib
from typing import Any

import jax
import numpy as np

from lidit_jax import files
from lidit_jax.training.telemetry.events import Events
from lidit_jax.training.telemetry.means import Means
from lidit_jax.training.telemetry.step_lines import StepLines

NAME = "metrics.jsonl"


class Metrics:
    """Averages each metric between two logs, and writes the averages with speed and time left.

    Only one process makes one. A resumed run appends, after dropping the steps that it repeats.

    saved: what `state` was when the run was saved, so that the next means are of the steps before that
      too; None for a run that begins.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        first_step: int,
        last_step: int,
        batch_size: int,
        saved: dict[str, Any] | None = None,
    ):
        self._events = Events(workdir / "tensorboard", first_step)
        self._lines = StepLines(workdir / NAME, first_step)
        self._batch_size, self._last_step = batch_size, last_step
        self._samples = workdir / "samples"
        self._means = Means(saved and saved["means"])
        self._skipped = saved["skipped"] if saved else 0

    @property
    def lines(self) -> int:
        """How many lines metrics.jsonl has."""
        return self._lines.count

    def state(self) -> dict[str, Any]:
        """Returns what was added since the last log, as JSON values."""
        return {"means": self._means.state(), "skipped": self._skipped}

    def add(self, metrics: dict):
        """Takes one step's metrics, as scalars on the host."""
        self._means.add(metrics)

    def skip(self):
        """Counts a step that was skipped, whose metrics are in no mean."""
        self._skipped += 1

    def log(self, step: int, facts: dict[str, float], drawn: dict[str, str]):
        """Writes the means of the steps since the last log, if there are any, and these facts.

        facts: what the clock has read, and what else is known at this step. drawn: what two runs that
        drew the same at this step have the same; for the JSON lines alone.
        """
        means = self._means.read()
        rate = facts["steps_per_s"]
        scalars = means | facts | {"images_per_s": rate * self._batch_size} | _memory()
        scalars["skipped"] = self._skipped
        self._events.scalars(step, scalars)
        self._lines.write(step, **scalars, **drawn)
        left = round((self._last_step - step) / rate)
        shown = (
            f"loss {means['loss']:.4f}  grad {means['grad_norm']:.2f}" if means else "all skipped"
        )
        print(
            f"{self._at(step)}  {shown}  {rate:.2f} steps/s  {left // 60}:{left % 60:02d} left",
            flush=True,
        )
        self._means, self._skipped = Means(), 0

    def scored(self, step: int, scores: dict[str, float]):
        """Writes how the state after a step does on what it does not learn from: a line of its own."""
        self._events.scalars(step, scores)
        self._events.flush()  # before its checkpoint
        self._lines.write(step, **scores)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(f"{self._at(step)}  {shown}", flush=True)

    def flush(self):
        """Has all that was written leave this process."""
        self._events.flush()

    def scalars(self, step: int, values: dict[str, float]):
        """Writes numbers to TensorBoard alone."""
        self._events.scalars(step, values)

    def picture(self, step: int, name: str, image_HxWx3: np.ndarray):
        """Writes a uint8 picture to samples/ and to TensorBoard."""
        files.write_png(self._samples / f"step-{step:07d}.png", image_HxWx3)
        self._events.picture(step, name, image_HxWx3)

    def _at(self, step: int) -> str:
        return f"step {step:>{len(str(self._last_step))}}/{self._last_step}"

    def close(self):
        self._events.close()
        self._lines.close()


def _memory() -> dict[str, int]:
    """Returns the most bytes of a device that were in use so far; nothing of one that does not count."""
    stats = jax.local_devices()[0].memory_stats() or {}
    used = stats.get("peak_bytes_in_use")
    return {} if used is None else {"device_memory_bytes": used}
