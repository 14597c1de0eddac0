"""Ratios of sums, as computed by hand; and intervals that cover what they should."""

import numpy as np
import pytest

from lidit_jax.evaluation import intervals
from lidit_jax.evaluation.intervals import Tally

SEVERAL = Tally(np.array([1.0, 2.0, 0.0]), np.array([4.0, 4.0, 2.0]))
ONE = Tally(np.array([3.0, 0.0, 0.0]), np.array([4.0, 0.0, 0.0]))


def test_a_score_is_a_ratio_of_sums_and_an_average_one_of_scores():
    found = intervals.scores({"several": SEVERAL, "one": ONE}, {"both": ("several", "one")})
    assert found["several"].value == pytest.approx(3 / 10)
    assert found["one"].value == pytest.approx(3 / 4)
    assert found["both"].value == pytest.approx((3 / 10 + 3 / 4) / 2)


def test_what_no_prompt_tells_of_is_refused():
    with pytest.raises(ValueError, match="metric 'none' applies to no prompt"):
        intervals.scores({"none": Tally(np.zeros(3), np.zeros(3))}, {})


def test_a_metric_of_one_prompt_has_no_spread_where_it_is_drawn():
    score = intervals.scores({"one": ONE}, {}, seed=1)["one"]
    assert (score.low, score.high) == (0.75, 0.75)


def test_the_bounds_are_quantiles_of_resamples():
    """Of two prompts, 0 and 1, a resample's mean is 0, 1/2 or 1, with chances 1/4, 1/2 and 1/4."""
    tally = Tally(np.array([0.0, 1.0]), np.ones(2))
    score = intervals.scores({"m": tally}, {})["m"]
    assert (score.low, score.value, score.high) == (0, 0.5, 1)
    fixed = intervals.scores({"m": tally}, {}, strata_P=["a", "b"])["m"]
    assert (fixed.low, fixed.value, fixed.high) == (0.5, 0.5, 0.5)  # one of each, always


@pytest.mark.parametrize("share", [0.2, 0.8])
def test_many_prompts_have_the_interval_of_a_normal_mean(share):
    tally = Tally(np.arange(1000) < 1000 * share, np.ones(1000))
    score = intervals.scores({"m": tally}, {}, resamples=20_000)["m"]
    half = 1.96 * np.sqrt(share * (1 - share) / 1000)
    assert score.low == pytest.approx(share - half, abs=0.05 * half)
    assert score.high == pytest.approx(share + half, abs=0.05 * half)


def test_groups_keep_their_numbers_and_every_prompt_is_drawn():
    strata = ["a"] * 5 + ["b"] * 2 + ["a"]
    times_RxP = intervals.draws(strata, 400, np.random.default_rng(0))
    in_a = np.array(strata) == "a"
    assert (times_RxP[:, in_a].sum(axis=1) == 6).all()
    assert (times_RxP[:, ~in_a].sum(axis=1) == 2).all()
    np.testing.assert_allclose(times_RxP.mean(axis=0), 1, atol=0.2)
    assert times_RxP.max() > 1


def test_prompts_of_a_unit_are_drawn_together():
    units = [0, 0, 1, 1, 2]
    times_RxP = intervals.draws(["a"] * 5, 50, np.random.default_rng(0), units)
    np.testing.assert_array_equal(times_RxP[:, 0], times_RxP[:, 1])
    np.testing.assert_array_equal(times_RxP[:, 2], times_RxP[:, 3])
    assert (times_RxP[:, [0, 2, 4]].sum(axis=1) == 3).all()


def test_more_alike_groups_make_narrower_intervals():
    """What differs between groups is by design, and no reason to doubt."""
    values = np.r_[np.zeros(40), np.ones(40)]
    tally = {"m": Tally(values, np.ones(80))}
    free = intervals.scores(tally, {})["m"]
    within = intervals.scores(tally, {}, strata_P=["low"] * 40 + ["high"] * 40)["m"]
    assert within.high - within.low == 0 < 0.1 < free.high - free.low


@pytest.mark.parametrize("per_prompt", [1, 4])
def test_an_interval_covers_the_truth_about_as_often_as_it_says(per_prompt):
    """Pictures of a prompt are right with the prompt's own chance, whose mean over prompts is 0.5."""
    rng = np.random.default_rng(0)
    times, prompts, covered = 300, 60, 0
    for seed in range(times):
        chance_P = rng.beta(0.6, 0.6, prompts)
        right_P = rng.binomial(per_prompt, chance_P).astype(float)
        tally = Tally(right_P, np.full(prompts, float(per_prompt)))
        score = intervals.scores({"m": tally}, {}, resamples=500, seed=seed)["m"]
        covered += score.low <= 0.5 <= score.high
    assert 0.91 <= covered / times <= 0.98


def test_the_same_seed_gives_the_same_interval():
    first, same, other = (
        intervals.scores({"m": SEVERAL}, {}, resamples=50, seed=seed)["m"] for seed in (3, 3, 4)
    )
    assert first == same
    assert first.value == other.value
