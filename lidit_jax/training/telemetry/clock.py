"""Where a run's wall time goes, over all its starts."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax


class Clock:
    """Separates the time in which steps were computed from the rest.

    A step's time runs to its end from when queuing it began (queuing may block as long as the
    devices want), or from when the previous step ended, if that is later. Work lost to a kill is in
    no `state` that a run resumes from, and so counts as lost time.

    Args:
      started: when the process began to work on the run, in seconds since 1970.
      saved: the `state` at the step that the run resumes from; None for a new run.
    """

    def __init__(self, started: float, saved: dict[str, float] | None = None):
        saved = saved or {"began_time": started, "trained_s": 0.0}
        self._began, self._trained = saved["began_time"], saved["trained_s"]
        self._mark = self._ended = self._kept = time.perf_counter()
        self._begun = self._mark
        self._waited, self._steps_queued, self._steps_ended = 0.0, 0, 0
        self._queue = queue.SimpleQueue()
        threading.Thread(target=self._follow, daemon=True).start()

    def begin(self):
        """Called before a step is queued."""
        self._begun = time.perf_counter()

    def queued(self, result: Any):
        """Called when the step has been queued. result: an array that the step will return."""
        self._steps_queued += 1
        self._queue.put((self._begun, result))

    def close(self):
        self._queue.put(None)

    def state(self) -> dict[str, float]:
        """Returns what a resumed run needs."""
        return {"began_time": self._began, "trained_s": self._trained}

    @contextlib.contextmanager
    def fetching(self) -> Iterator[None]:
        """Counts the block's time as data wait, except while a step is still being computed."""
        begun = time.perf_counter()
        yield
        if self._steps_ended == self._steps_queued:
            self._waited += time.perf_counter() - max(begun, self._ended)

    def kept(self, since: float):
        """Called when a checkpoint of the state at time `since` (perf_counter) is on disk."""
        self._kept = since

    def read(self, steps: int) -> dict[str, float]:
        """Returns timings of the `steps` since the last call.

        steps_per_s; data_wait_s: seconds per step in which no step was computed for lack of data;
        goodput: the fraction of the time since the run's first start spent computing steps that
        were kept; trained_s, began_time: its parts, in seconds and in seconds since 1970;
        checkpoint_age_s: how much training a kill would cost now.
        """
        now = time.perf_counter()
        facts = {
            "steps_per_s": steps / (now - self._mark),
            "data_wait_s": self._waited / steps,
            "goodput": self._trained / max(time.time() - self._began, 1e-9),
            "checkpoint_age_s": now - self._kept,
        }
        self._mark, self._waited = now, 0.0
        return facts | self.state()

    def _follow(self):
        """Waits for each queued step, in its own thread: nothing else reports a step's end."""
        while (step := self._queue.get()) is not None:
            begun, result = step
            with contextlib.suppress(Exception):  # the loop will see it too
                jax.block_until_ready(result)
            ended = time.perf_counter()
            self._trained += ended - max(begun, self._ended)
            self._ended = ended
            self._steps_ended += 1
