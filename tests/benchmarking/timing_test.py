"""What is compared is timed in turn, and what compiles first is not counted."""

import numpy as np
import pytest

from lidit_jax.benchmarking import timing


def test_parts_take_turns():
    called = []
    timing.take({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2)
    assert "".join(called) == "ababab"


def test_the_first_call_is_not_counted(monkeypatch):
    waits, clock = iter([0.5, 0.0, 0.02, 0.01]), [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def part():
        clock[0] += next(waits)
        return np.zeros(1)

    seconds = timing.take({"part": part}, rounds=3)["part"]
    assert (seconds.least, seconds.median, seconds.most) == pytest.approx((0.0, 0.01, 0.02))
