"""Writes a run's numbers to the console, TensorBoard events and a JSON-lines file."""

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
    """Averages each metric between two logs and writes the means with speed and time left.

    Only one process makes one. A resumed run appends, after dropping the steps that it repeats.

    saved: the `state` when the run was saved, so that the next means include the steps before it;
      None for a new run.
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
        """The number of lines in metrics.jsonl."""
        return self._lines.count

    def state(self) -> dict[str, Any]:
        """Returns what was added since the last log, as JSON values."""
        return {"means": self._means.state(), "skipped": self._skipped}

    def add(self, metrics: dict):
        """Adds one step's metrics, scalars on the host."""
        self._means.add(metrics)

    def skip(self):
        """Counts a skipped step, whose metrics are in no mean."""
        self._skipped += 1

    def log(self, step: int, facts: dict[str, float], drawn: dict[str, str]):
        """Writes the means of the steps since the last log, if there are any, and these facts.

        facts: the clock's readings, and others about this step. drawn: digests that are equal for
        two runs that drew the same batch and noise at this step; only for the JSON lines.
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
        """Writes the held-out scores of the state after a step, on a separate line."""
        self._events.scalars(step, scores)
        self._events.flush()  # before its checkpoint
        self._lines.write(step, **scores)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        print(f"{self._at(step)}  {shown}", flush=True)

    def flush(self):
        """Makes everything written leave this process."""
        self._events.flush()

    def scalars(self, step: int, values: dict[str, float]):
        """Writes numbers to TensorBoard only."""
        self._events.scalars(step, values)

    def picture(self, step: int, name: str, image_HxWx3: np.ndarray):
        """Writes a uint8 image to samples/ and to TensorBoard."""
        files.write_png(self._samples / f"step-{step:07d}.png", image_HxWx3)
        self._events.picture(step, name, image_HxWx3)

    def _at(self, step: int) -> str:
        return f"step {step:>{len(str(self._last_step))}}/{self._last_step}"

    def close(self):
        self._events.close()
        self._lines.close()


def _memory() -> dict[str, int]:
    """Returns a device's peak memory in bytes; empty if the device does not report it."""
    stats = jax.local_devices()[0].memory_stats() or {}
    used = stats.get("peak_bytes_in_use")
    return {} if used is None else {"device_memory_bytes": used}
