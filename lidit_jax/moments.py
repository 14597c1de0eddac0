"""Mean and variance per channel, gathered part by part and merged; f64 throughout."""

from typing import Any

import numpy as np


class Moments:
    """Count, mean and centred second moment of rows [N, C].

    Parts are merged as centred moments (Chan et al., 1979), which a large mean does not ruin.
    """

    def __init__(self, width: int):
        self.count = 0
        self.mean_C, self._m2_C = np.zeros(width), np.zeros(width)

    def add(self, x_NxC: np.ndarray):
        """Takes rows; the last axis is the channels', whatever comes before it."""
        x_NxC = x_NxC.reshape(-1, x_NxC.shape[-1]).astype(np.float64)
        if len(x_NxC):
            mean_C = x_NxC.mean(0)
            self._merge(len(x_NxC), mean_C, ((x_NxC - mean_C) ** 2).sum(0))

    def merge(self, part: dict[str, Any]):
        """Takes what another part's `to_json` gave."""
        if part["count"]:
            self._merge(part["count"], np.asarray(part["mean"]), np.asarray(part["m2"]))

    def _merge(self, count, mean_C, m2_C):
        delta_C, total = mean_C - self.mean_C, self.count + count
        self._m2_C += m2_C + delta_C**2 * self.count * count / total
        self.mean_C += delta_C * count / total
        self.count = total

    @property
    def std_C(self) -> np.ndarray:
        """The standard deviation; 0 before the first row."""
        return np.sqrt(self._m2_C / max(self.count, 1))

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean_C.tolist(), "m2": self._m2_C.tolist()}
