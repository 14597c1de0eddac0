"""Which steps are traced: those asked for, each whole, whatever starts and stops in between."""

import jax
import pytest

from lidit_jax import errors
from lidit_jax.training.tracing import Tracer


@pytest.fixture
def run(monkeypatch):
    """Runs steps `first` to `last` under a tracer; returns the steps done, between the brackets of a trace."""
    told = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: told.append("["))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: told.append("]"))
    monkeypatch.setattr(jax, "block_until_ready", lambda step: told.append(f"await {step}"))

    def through(first, last, steps, write=True):
        told.clear()
        tracer = Tracer("folder", steps, 9, write)
        for step in range(first, last + 1):
            tracer.before(step)
            told.append(step)
            tracer.after(step, step)
        tracer.close()
        tracer.close()
        return told

    return through


def test_the_steps_asked_for_are_traced_until_the_last_is_done(run):
    assert run(1, 5, (2, 3)) == [1, "[", 2, 3, "await 3", "]", 4, 5]
    assert run(8, 9, (9, 9)) == [8, "[", 9, "await 9", "]"]


def test_a_run_that_begins_or_ends_among_them_traces_those_that_it_runs(run):
    assert run(3, 5, (2, 4)) == ["[", 3, 4, "await 4", "]", 5]
    assert run(1, 3, (2, 4)) == [1, "[", 2, 3, "]"]
    assert run(5, 6, (2, 4)) == [5, 6]


def test_who_does_not_write_traces_nothing_and_refuses_the_same_steps(run):
    assert run(1, 3, (2, 3), write=False) == run(1, 3, None) == [1, 2, 3]
    for write in (True, False):
        with pytest.raises(errors.InputError, match="--profile_steps=10,12: the run has 9 steps"):
            Tracer("folder", (10, 12), 9, write)
