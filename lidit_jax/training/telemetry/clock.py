"""Where a run's wall time goes, over all of its starts."""

import contextlib
import queue
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax


class Clock:
    """Tells the time in which steps were computed from the time in which none was.

    A step's time is from when it was begun to be queued, which may take as long as the devices wish, or
    from when the one before it ended, if that is later, to its own end. What a kill makes vain is in no `state` that a run goes on from, and so counts as lost.

    Args:
      started: when the process began to work on the run, in seconds since 1970.
      saved: what `state` was at the step that it goes on from; None for a run that begins.
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
        """Is called before a step is queued."""
        self._begun = time.perf_counter()

    def queued(self, result: Any):
        """Is called when the step that was begun is queued, with an array that it is going to give."""
        self._steps_queued += 1
        self._queue.put((self._begun, result))

    def close(self):
        self._queue.put(None)

    def state(self) -> dict[str, float]:
        """Returns what a resumed run has to know."""
        return {"began_time": self._began, "trained_s": self._trained}

    @contextlib.contextmanager
    def fetching(self) -> Iterator[None]:
        """Counts the time of a block, but that in which a step is still computed, as spent on data."""
        begun = time.perf_counter()
        yield
        if self._steps_ended == self._steps_queued:
            self._waited += time.perf_counter() - max(begun, self._ended)

    def kept(self, since: float):
        """Is called when a checkpoint is on disk, of a state as it was at `since` (perf_counter)."""
        self._kept = since

    def read(self, steps: int) -> dict[str, float]:
        """Returns what is known of the `steps` since the last reading.

        steps_per_s; data_wait_s: seconds a step for which no step was computed for want of data;
        goodput: the share of the time since the run's first start in which steps were computed that
        are kept; trained_s, began_time: its parts, in seconds and in seconds since 1970;
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
        """Waits for each queued step, in a thread of its own: the devices tell nobody else when one ends."""
        while (step := self._queue.get()) is not None:
            begun, result = step
            with contextlib.suppress(Exception):  # which the loop will find too
                jax.block_until_ready(result)
            ended = time.perf_counter()
            self._trained += ended - max(begun, self._ended)
            self._ended = ended
            self._steps_ended += 1
