"""Means of metrics over steps, which a run stopped in between can resume."""

from typing import Any


class Means:
    """Sums metrics over steps.

    saved: the `state` when the run was saved; None for nothing so far.
    """

    def __init__(self, saved: dict[str, Any] | None = None):
        saved = saved or {"sums": {}, "count": 0}
        self._sums, self._count = dict(saved["sums"]), saved["count"]

    def add(self, metrics: dict[str, float]):
        """Adds one step's metrics, scalars on the host."""
        for name, value in metrics.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        self._count += 1

    def read(self) -> dict[str, float]:
        """Returns the mean of each metric; empty without steps."""
        return {name: total / self._count for name, total in self._sums.items()}

    def state(self) -> dict[str, Any]:
        """Returns the sums as JSON values, which keep a float to its last bit."""
        return {"sums": dict(self._sums), "count": self._count}
