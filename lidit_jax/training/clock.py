"""Where a run's wall time goes, over all of its starts."""

import contextlib
import time
from collections.abc import Iterator, Sequence


class Clock:
    """Tells the time that trained from the time that did not.

    started: when the process began, in seconds since 1970.
    lines: what metrics.jsonl has of the steps that are kept; each has the clock's own facts. What a
      kill made vain is in none of them, so that it counts as lost.
    """

    def __init__(self, started: float, lines: Sequence[dict]):
        last = lines[-1] if lines else {}
        self._began = last.get("began_time", started)
        self._trained_s = last.get("trained_s", 0.0)
        self._beside, self._mark, self._saved = {}, time.perf_counter(), time.perf_counter()

    @contextlib.contextmanager
    def beside(self, what: str) -> Iterator[None]:
        """Counts the time of a block as spent on `what`, and as not spent on training."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            spent = self._beside.get(what, 0.0) + time.perf_counter() - begun
            self._beside[what] = spent
            if what == "save":
                self._saved = begun

    def read(self, steps: int) -> dict[str, float]:
        """Returns what is known of the `steps` since the last reading.

        steps_per_s; data_wait_s: seconds a step that the devices' queue waited for data;
        goodput: the share of the time since the run's first start that went into steps which are
        kept; trained_s, began_time: its two parts, in seconds and in seconds since 1970;
        checkpoint_age_s: how much training a kill would cost now.
        """
        now = time.perf_counter()
        elapsed = now - self._mark
        self._trained_s += elapsed - sum(self._beside.values())
        facts = {
            "steps_per_s": steps / elapsed,
            "data_wait_s": self._beside.get("data", 0.0) / steps,
            "goodput": self._trained_s / max(time.time() - self._began, 1e-9),
            "trained_s": self._trained_s,
            "began_time": self._began,
            "checkpoint_age_s": now - self._saved,
        }
        self._mark, self._beside = now, {}
        return facts
