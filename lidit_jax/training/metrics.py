"""Where a run's numbers go: the console, TensorBoard event files and a JSON-lines file."""

import pathlib
import sys
import time
from typing import Any

import numpy as np

from lidit_jax.training.step_lines import StepLines


def _import_without_torch():
    """tensorboardX imports torch wherever it is installed; training has no use for it."""
    had = sys.modules.get("torch")
    sys.modules["torch"] = None  # makes `import torch` an ImportError, which tensorboardX expects
    try:
        import tensorboardX.event_file_writer
        import tensorboardX.summary
    finally:
        del sys.modules["torch"]
        if had is not None:
            sys.modules["torch"] = had
    return tensorboardX


tensorboardX = _import_without_torch()
_FLUSH_S = 120  # seconds between two looks that TensorBoard's file is on the disk


class _Events:
    """TensorBoard's file of events, written by the thread that has them.

    tensorboardX's own SummaryWriter hands them to another: a full disk ends that thread, and the run
    would then wait for it for ever. Here it is an OSError.
    """

    def __init__(self, folder: pathlib.Path, first_step: int):
        folder.mkdir(parents=True, exist_ok=True)
        self._file = tensorboardX.event_file_writer.EventsWriter(str(folder / "events"))
        self._flushed = time.monotonic()
        start = tensorboardX.proto.event_pb2.SessionLog(status=1)  # START: forget later steps
        self._write(first_step, session_log=start)

    def add(self, step: int, summary: Any):
        self._write(step, summary=summary)
        if time.monotonic() - self._flushed > _FLUSH_S:
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self):
        self._file.close()

    def _write(self, step: int, **what: Any):
        event = tensorboardX.proto.event_pb2.Event(wall_time=time.time(), step=step, **what)
        self._file.write_event(event)


class Metrics:
    """Averages each metric between two logs, and writes the averages with speed and time left.

    Only one process makes one. A resumed run appends, after dropping the steps that it repeats.

    begun: what `begun` was when the run was saved, so that a log's mean is of the steps before that too.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        first_step: int,
        last_step: int,
        batch_size: int,
        begun: dict | None = None,
    ):
        self._events = _Events(workdir / "tensorboard", first_step)
        self._lines = StepLines(workdir / "metrics.jsonl", first_step)
        self._batch_size, self._last_step = batch_size, last_step
        self._sums, self._since = (begun["sums"], begun["since"]) if begun else ({}, 0)
        self._timed, self._clock = 0, time.perf_counter()

    @property
    def begun(self) -> dict[str, Any]:
        """What was added since the last log, as JSON values; they say a float to its last bit."""
        return {"sums": dict(self._sums), "since": self._since}

    def add(self, metrics: dict):
        """Takes one step's metrics, as scalars on the host."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._since += 1
        self._timed += 1

    def log(self, step: int):
        """Writes the means since the last log, under this number of finished steps.

        Raises FloatingPointError if one of them is not finite.
        """
        check_finite(step, self._sums)
        now = time.perf_counter()
        rate = self._timed / (now - self._clock)
        scalars = {name: total / self._since for name, total in self._sums.items()}
        scalars |= {"steps_per_s": rate, "images_per_s": rate * self._batch_size}
        for name, value in scalars.items():
            self._events.add(step, tensorboardX.summary.scalar(name, value))
        self._lines.write(step, **scalars)
        left = round((self._last_step - step) / rate)
        print(
            f"step {step:>{len(str(self._last_step))}}/{self._last_step}  loss {scalars['loss']:.4f}  "
            f"grad {scalars['grad_norm']:.2f}  {rate:.2f} steps/s  {left // 60}:{left % 60:02d} left",
            flush=True,
        )
        self._sums, self._since = {}, 0
        self._timed, self._clock = 0, time.perf_counter()

    def picture(self, step: int, name: str, image_HxWx3: np.ndarray):
        summary = tensorboardX.summary.image(name, image_HxWx3, dataformats="HWC")
        self._events.add(step, summary)

    def close(self):
        self._events.close()
        self._lines.close()


def check_finite(step: int, metrics: dict):
    """Raises FloatingPointError unless every metric is finite.

    Called before a checkpoint is saved, so that no checkpoint holds what cannot be trained further.
    """
    broken = [name for name, value in metrics.items() if not np.isfinite(value)]
    if broken:
        raise FloatingPointError(
            f"{' and '.join(broken)} not finite at or before step {step}; lower the learning rate, or "
            f"start again from the last checkpoint with other data"
        )
