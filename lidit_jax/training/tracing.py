"""Traces a few steps with `jax.profiler`."""

import pathlib
from typing import Any

import jax

from lidit_jax import errors


class Tracer:
    """Writes a trace of the steps `first` to `last` to `folder`.

    Args:
      folder: gets one folder per trace; TensorBoard's profile plugin and XProf read it.
      steps: (first, last); None: no trace. A resumed run traces those of them that it runs.
      total: steps of the run. Raises InputError if it ends before `first`.
      write: whether this process writes the trace; all of them check.
    """

    def __init__(
        self, folder: pathlib.Path, steps: tuple[int, int] | None, total: int, write: bool
    ):
        if steps and steps[0] > total:
            raise errors.InputError(
                f"--profile_steps={steps[0]},{steps[1]}: "
                f"the run has {total} steps; name some of those"
            )
        self._folder, self._steps, self._on = folder, steps if write else None, False

    def before(self, step: int):
        """Called when a step is about to be queued."""
        if self._steps and not self._on and self._steps[0] <= step <= self._steps[1]:
            jax.profiler.start_trace(self._folder)
            self._on = True

    def after(self, step: int, result: Any):
        """Called when a step has been queued; waits for `result`, its arrays, if it is the last."""
        if self._on and step >= self._steps[1]:
            jax.block_until_ready(result)
            self.close()

    def close(self):
        """Ends a trace that is still running."""
        if self._on:
            jax.profiler.stop_trace()
            self._on = False
