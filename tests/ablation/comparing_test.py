"""Intervals of runs and of their differences: they cover the truth as often as they say."""

import dataclasses

import numpy as np
import pytest

from lidit_jax.ablation import claims
from lidit_jax.ablation.comparing import Comparison
from lidit_jax.evaluation.benchmarks.benchmark import Tallies
from lidit_jax.evaluation.intervals import Tally

CLAIM = claims.parse("b > a")


def tallies(*right_P):
    """One metric, "m", of pictures that are right or not; one object for each seed."""
    return [
        Tallies({"m": Tally(np.array(r, float), np.ones(len(r)))}, {"mean": ["m"]}) for r in right_P
    ]


def test_a_value_is_the_mean_over_seeds():
    found = {"a": tallies([1, 0, 0, 0], [1, 1, 0, 0]), "b": tallies([1, 1, 1, 0])}
    compared = Comparison(found, ["g"] * 4)
    assert compared.runs == ["a", "b"]
    assert compared.score("a", "m").value == 0.375 and compared.score("a", "mean").value == 0.375
    assert compared.find(CLAIM, "m").margin.value == 0.375


def test_a_verdict_is_on_which_side_of_zero_the_interval_is():
    rng = np.random.default_rng(0)
    low, high = rng.random((3, 400)) < 0.3, rng.random((3, 400)) < 0.6
    more, less = low | (rng.random((3, 400)) < 0.01), low & (rng.random((3, 400)) < 0.97)
    more[0, :20], less[0, :20] = False, True  # so that seeds differ too
    cases = (
        (low, high, "holds"),
        (high, low, "fails"),
        (low, more, "undecided"),
        (low, less, "undecided"),
    )
    for a, b, wanted in cases:
        compared = Comparison({"a": tallies(*a), "b": tallies(*b)}, ["g"] * 400)
        assert compared.find(CLAIM, "m").verdict == wanted


def test_the_same_prompts_are_drawn_for_all_runs():
    """Runs that are right on the very same prompts differ by nothing, whatever prompts are drawn."""
    right = np.random.default_rng(0).random(50) < 0.5
    compared = Comparison({"a": tallies(right), "b": tallies(right)}, ["g"] * 50)
    margin = compared.find(CLAIM, "m").margin
    assert (margin.low, margin.value, margin.high) == (0, 0, 0)
    assert compared.score("a", "m").high - compared.score("a", "m").low > 0.2


def test_seeds_that_differ_widen_the_interval():
    half = np.arange(100) % 2
    alike = Comparison({"a": tallies(half, half)}, ["g"] * 100).score("a", "m")
    apart = Comparison({"a": tallies(np.zeros(100), np.ones(100))}, ["g"] * 100).score("a", "m")
    assert alike.value == apart.value == 0.5
    assert alike.high - alike.low < 0.25 and apart.high - apart.low > 0.9


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_an_interval_covers_the_truth(seeds):
    """Of runs whose seeds have an ability of their own, around 0.5."""
    covered, trials = 0, 150
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        ability = np.clip(rng.normal(0.5, 0.06, (seeds, 1)), 0, 1)
        compared = Comparison({"a": tallies(*(rng.random((seeds, 200)) < ability))}, ["g"] * 200)
        score = compared.score("a", "m")
        covered += score.low <= 0.5 <= score.high
    assert covered / trials >= 0.92


@pytest.mark.parametrize("seeds", [(1, 1, 3), (2, 2, 2), (3, 1, 1)])
def test_the_difference_of_two_runs_covers_the_truth(seeds):
    """Of runs that are alike but for their seeds, which all say how much seeds differ."""
    covered, trials = 0, 150
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        drawn = [rng.random((n, 200)) < rng.normal(0.5, 0.06, (n, 1)) for n in seeds]
        found = {name: tallies(*of) for name, of in zip("abc", drawn, strict=True)}
        margin = Comparison(found, ["g"] * 200).find(CLAIM, "m").margin
        covered += margin.low <= 0 <= margin.high
    assert 0.92 <= covered / trials


def test_the_spread_of_seeds_is_pooled_over_runs():
    """Of runs whose seeds lie 0.2 and 0.4 apart: s^2 is the mean of 0.2^2 / 2 and 0.4^2 / 2."""
    right = [np.arange(100) < n for n in (40, 60, 30, 70, 50)]
    found = {"a": tallies(*right[:2]), "b": tallies(*right[2:4]), "c": tallies(right[4])}
    compared = Comparison(found, ["g"] * 100)
    assert compared.freedom == 2
    assert compared.spread["m"] == pytest.approx(np.sqrt((0.02 + 0.08) / 2))
    widths = [compared.score(run, "m").high - compared.score(run, "m").low for run in "abc"]
    assert widths[0] == pytest.approx(widths[1], rel=0.1) and widths[2] > 1.25 * widths[0]


def test_prompts_of_one_unit_are_drawn_together():
    """Four copies of each prompt say no more than the prompts."""
    right = np.random.default_rng(0).random(60) < 0.5
    once = Comparison({"a": tallies(right)}, ["g"] * 60)
    (four,) = tallies(np.repeat(right, 4))
    four = dataclasses.replace(four, units=np.repeat(range(60), 4).tolist())
    copied = Comparison({"a": [four]}, ["g"] * 240)
    alone = Comparison({"a": tallies(np.repeat(right, 4))}, ["g"] * 240)
    wide, same, narrow = (c.score("a", "m") for c in (once, copied, alone))
    assert abs((wide.high - wide.low) - (same.high - same.low)) < 0.02
    assert (narrow.high - narrow.low) < 0.6 * (wide.high - wide.low)


def test_prompts_are_drawn_within_their_group():
    """Groups that are all right and all wrong leave nothing to chance."""
    right, groups = [1] * 30 + [0] * 30, ["right"] * 30 + ["wrong"] * 30
    score = Comparison({"a": tallies(right)}, groups).score("a", "m")
    assert (score.low, score.value, score.high) == (0.5, 0.5, 0.5)


def test_one_seed_decides_nothing():
    low, high = np.arange(400) % 10 == 0, np.arange(400) % 10 > 0
    one = Comparison({"a": tallies(low), "b": tallies(high)}, ["g"] * 400).find(CLAIM, "m")
    assert one.margin.low > 0.7 and one.verdict == "undecided: one seed"
    two = Comparison({"a": tallies(low, low), "b": tallies(high, high)}, ["g"] * 400)
    assert two.find(CLAIM, "m").verdict == "holds"


def test_a_metric_of_one_prompt_is_not_scored_where_it_is_not_drawn():
    tally = Tally(np.array([1.0, 0, 0]), np.array([1.0, 0, 0]))
    score = Comparison({"a": [Tallies({"m": tally}, {})]}, ["g"] * 3).score("a", "m")
    assert (score.low, score.value, score.high) == (1, 1, 1)
