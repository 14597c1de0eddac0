"""What is compared is timed in turn, and what compiles first is not counted."""

import time

import numpy as np

from lidit_jax.benchmarking.timing import take


def test_parts_take_turns():
    called = []
    take({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2)
    assert "".join(called) == "ababab"


def test_the_first_call_is_not_counted():
    waits = iter([0.5, 0.0, 0.02, 0.01])

    def part():
        time.sleep(next(waits))
        return np.zeros(1)

    seconds = take({"part": part}, rounds=3)["part"]
    assert seconds.least < 0.01 <= seconds.median < seconds.most < 0.5
