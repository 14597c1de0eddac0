"""The schedule of bins: everyone's the same, fair at any time, and each batch of a bin in its turn."""

import numpy as np
import pytest

from lidit_jax.data.schedule import Schedule

COUNTS = [(48,), (1, 1), (5, 1, 1), (5, 1000), (3, 7, 2, 11), tuple(range(1, 34)), (1, 10**9)]


@pytest.mark.parametrize("counts", COUNTS)
def test_a_bins_batches_come_in_turn_and_in_proportion(counts):
    schedule, drawn = Schedule(counts), np.zeros(len(counts), int)
    share = np.asarray(counts) / sum(counts)
    for step in range(600):
        bin, k = schedule(step)
        assert k == drawn[bin]
        drawn[bin] += 1
        assert np.abs(drawn - (step + 1) * share).max() < 2


@pytest.mark.parametrize("counts", COUNTS)
def test_steps_follow_the_times_that_batches_are_due_at(counts):
    schedule, total = Schedule(counts), sum(counts)
    due = sorted(
        ((k + 0.5) * total / n, bin, k)
        for bin, n in enumerate(counts)
        for k in range(300 * n // total + 2)
    )
    assert [schedule(step) for step in range(300)] == [(bin, k) for _, bin, k in due[:300]]


@pytest.mark.parametrize("counts", COUNTS)
def test_a_step_far_from_the_start_is_found_without_the_ones_before(counts):
    schedule, start = Schedule(counts), 10**7
    seen = [schedule(step) for step in range(start, start + 200)]
    for bin, count in enumerate(counts):
        share, turns = count / sum(counts), [k for b, k in seen if b == bin]
        if turns:
            assert turns == list(range(turns[0], turns[0] + len(turns)))
            assert abs(turns[0] - start * share) < 2
        else:
            assert 200 * share < 2


@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize(("first", "last"), [(0, 1), (0, 40), (7, 9), (500, 900)])
def test_the_bins_of_some_steps_are_among_those_foretold(counts, first, last):
    schedule = Schedule(counts)
    drawn = {schedule(step)[0] for step in range(first, last)}
    near = {
        schedule(step)[0] for step in range(max(first - 2 * len(counts), 0), last + 2 * len(counts))
    }
    assert drawn <= set(schedule.among(first, last)) <= near


@pytest.mark.parametrize("counts", COUNTS)
def test_wherever_a_run_goes_on_its_next_bin_is_foretold(counts):
    schedule = Schedule(counts)
    for step in range(200):
        assert schedule(step)[0] in schedule.among(step, step + 1)


def test_after_whole_epochs_every_bin_has_had_its_batches_exactly():
    schedule = Schedule((8, 24, 16))
    bins = [schedule(step)[0] for step in range(12)]  # 48 pictures, 4 a batch
    assert [bins.count(b) for b in range(3)] == [2, 6, 4]
