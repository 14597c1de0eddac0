"""Mean and variance per channel, or covariance, accumulated in parts and merged; f64 throughout."""

from typing import Any

import numpy as np


class Moments:
    """Count, mean and centred second moment of rows [N, C].

    Parts are merged as centred moments (Chan et al., 1979), which stay accurate for a large mean.
    across: also moments of every two channels, for `covariance_CxC`.
    """

    def __init__(self, width: int, across: bool = False):
        self.count, self._across = 0, across
        self.mean_C, self._m2 = np.zeros(width), np.zeros((width, width) if across else width)

    def add(self, x_NxC: np.ndarray):
        """Adds rows; the last axis is channels, all axes before it are rows."""
        x_NxC = x_NxC.reshape(-1, x_NxC.shape[-1]).astype(np.float64)
        if len(x_NxC):
            mean_C = x_NxC.mean(0)
            apart_NxC = x_NxC - mean_C
            m2 = apart_NxC.T @ apart_NxC if self._across else (apart_NxC**2).sum(0)
            self._merge(len(x_NxC), mean_C, m2)

    def merge(self, part: dict[str, Any]):
        """Adds what another part's `to_json` returned."""
        if part["count"]:
            self._merge(part["count"], np.asarray(part["mean"]), np.asarray(part["m2"]))

    def _merge(self, count, mean_C, m2):
        delta_C, total = mean_C - self.mean_C, self.count + count
        squares = np.outer(delta_C, delta_C) if self._across else delta_C**2
        self._m2 += m2 + squares * self.count * count / total
        self.mean_C += delta_C * count / total
        self.count = total

    @property
    def std_C(self) -> np.ndarray:
        """The standard deviation; 0 before the first row."""
        m2_C = self._m2.diagonal() if self._across else self._m2
        return np.sqrt(m2_C / max(self.count, 1))

    @property
    def covariance_CxC(self) -> np.ndarray:
        """The unbiased covariance (divisor count - 1); needs `across`, and two rows or more."""
        return self._m2 / (self.count - 1)

    def to_json(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean_C.tolist(), "m2": self._m2.tolist()}
