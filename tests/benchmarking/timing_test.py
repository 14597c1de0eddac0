"""What is compared is timed in turn, and what compiles first is not counted."""

import pytest

from lidit_jax.benchmarking import timing


def test_parts_take_turns():
    called = []
    timing.take({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2)
    assert "".join(called) == "ababab"


def test_the_first_call_is_not_counted_and_each_ends_when_its_arrays_are_there(monkeypatch):
    waits, clock = iter([0.5, 0.0, 0.04, 0.01]), [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    class Array:
        def block_until_ready(self):
            clock[0] += next(waits)

    seconds = timing.take({"part": Array}, rounds=3)["part"]
    assert (seconds.least, seconds.median, seconds.most) == pytest.approx((0.0, 0.01, 0.04))
