"""What follows a step: what is due, when it is due, and all of it after the last."""

import contextlib

import jax
import pytest

from lidit_jax import processes
from lidit_jax.training import checkpoints, logbook, loop
from lidit_jax.training.checkpoints import record
from tests import same_run, several, tiny


@pytest.fixture(scope="module")
def run(llms, data, tmp_path_factory):
    """A run whose third step, at which all is due, is skipped, and that is told to stop at its last.

    Returns its folder, the seconds that its saves were given, and when its trace began and ended.
    """
    every = dict.fromkeys(("save_every", "log_every", "preview_every"), 3)
    config, limits, traced = tiny.config_dict(llms[:1], steps=5, **every), [], []
    config.model.depth = 1
    queued = logbook.Logbook.queued

    def skipped(log, step, *args):
        queued(log, step, *args)
        log.in_a_row = int(step == 3)

    @contextlib.contextmanager
    def within(seconds, what):
        limits.append(seconds)
        yield

    folder = tmp_path_factory.mktemp("loop") / "run"
    with pytest.MonkeyPatch.context() as patched, several.stopped(patched, question=5):
        patched.setattr(logbook.Logbook, "queued", skipped)
        patched.setattr(processes, "within", within)
        patched.setattr(jax.profiler, "start_trace", lambda _: traced.append("begun"))
        patched.setattr(jax.profiler, "stop_trace", lambda: traced.append("ended"))
        loop.train(tiny.parse(config), data, folder, profile=(4, 9))
    return folder, limits, traced


def test_a_run_that_is_told_to_stop_at_its_last_step_is_done(run):
    """And no save was in a hurry."""
    folder, limits, _ = run
    assert checkpoints.was_due(folder, 5) and set(limits) == {0}


def test_the_last_step_is_logged_and_shown_whatever_is_due(run):
    folder, *_ = run
    assert [line["step"] for line in same_run.metrics(folder)] == [3, 5]
    assert list(same_run.pictures(folder)) == ["step-0000003.png", "step-0000005.png"]


def test_a_checkpoint_that_is_due_at_a_skipped_step_comes_after_the_next_that_is_not(run):
    folder, *_ = run
    assert same_run.steps_saved(folder) == [4, 5]
    assert record.read(folder / "checkpoints" / "4")["due"] == 4


def test_a_trace_of_more_steps_than_there_are_ends_with_the_run(run):
    assert run[-1] == ["begun", "ended"]
