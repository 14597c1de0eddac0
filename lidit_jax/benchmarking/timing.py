"""Times of things to compare, measured in turn, so that a slow phase of the machine affects all."""

import dataclasses
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Seconds:
    """Median, minimum and maximum of the seconds that something took."""

    median: float
    least: float
    most: float

    def __str__(self):
        return f"{self.median:.4f} s ({self.least:.4f} to {self.most:.4f})"


def take(parts: dict[str, Callable[[], Any]], rounds: int) -> dict[str, Seconds]:
    """Returns how long each part takes; the first round,
    which compiles and warms up, is not counted.

    A part that returns arrays ends when they are ready.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(1 + rounds):
        for name, part in parts.items():
            start = time.perf_counter()
            jax.block_until_ready(part())
            times[name].append(time.perf_counter() - start)
    counted = {name: of_part[1:] for name, of_part in times.items()}
    return {name: Seconds(statistics.median(t), min(t), max(t)) for name, t in counted.items()}
