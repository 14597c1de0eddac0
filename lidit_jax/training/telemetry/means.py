"""Means of metrics over steps, which a run that is stopped in between goes on with."""

from typing import Any


class Means:
    """Sums up metrics, step after step.

    saved: what `state` was when the run was saved; None for nothing so far.
    """

    def __init__(self, saved: dict[str, Any] | None = None):
        saved = saved or {"sums": {}, "count": 0}
        self._sums, self._count = dict(saved["sums"]), saved["count"]

    def add(self, metrics: dict[str, float]):
        """Takes one step's metrics, as scalars on the host."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._count += 1

    def read(self) -> dict[str, float]:
        """Returns the mean of each metric; nothing of no steps."""
        return {name: total / self._count for name, total in self._sums.items()}

    def state(self) -> dict[str, Any]:
        """Returns what was summed up, as JSON values; they say a float to its last bit."""
        return {"sums": dict(self._sums), "count": self._count}
