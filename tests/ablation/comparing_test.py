"""Intervals of runs and of their differences: they cover the truth as often as they say."""

import dataclasses

import numpy as np
import pytest

from lidit_jax.ablation import claims, comparing
from lidit_jax.ablation.comparing import Comparison
from lidit_jax.evaluation.benchmarks.benchmark import Tallies
from lidit_jax.evaluation.intervals import Tally

CLAIM = claims.parse("b > a")


def tallies(*right_P):
    """One metric, "m", of pictures that are right or not, by seed: 0, 1, ..."""
    each = [Tally(np.array(r, float), np.ones(len(r))) for r in right_P]
    return {seed: Tallies({"m": tally}, {"mean": ["m"]}) for seed, tally in enumerate(each)}


def test_a_value_is_the_mean_over_seeds():
    found = {"a": tallies([1, 0, 0, 0], [1, 1, 0, 0]), "b": tallies([1, 1, 1, 0])}
    compared = Comparison(found, ["g"] * 4)
    assert list(compared.value) == ["a", "b"] and compared.value["b"] == {"m": 0.75, "mean": 0.75}
    for metric in ("m", "mean"):
        assert compared.score("a", metric).value == pytest.approx(0.375)


def test_a_margin_compares_runs_as_if_each_had_every_seed():
    """Seed 1 is worth 0.1 less to all; `b` alone has it not."""
    right = {n: np.arange(100) < n for n in (50, 40, 80, 70, 60)}
    found = {"a": tallies(right[50], right[40]), "c": tallies(right[80], right[70])}
    found["b"] = tallies(right[60])
    compared = Comparison(found, ["g"] * 100)
    assert compared.score("b", "m").value - compared.score("a", "m").value == pytest.approx(0.15)
    assert compared.find(CLAIM, "m").margin.value == pytest.approx(0.1)
    (spread,) = compared.spreads
    assert spread.freedom == 1 and spread.of["m"] == pytest.approx(0, abs=1e-6)


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
    assert (alike.value, apart.value) == pytest.approx((0.5, 0.5))
    assert alike.high - alike.low < 0.25 and apart.high - apart.low > 0.9
    assert (apart.low, apart.high) == (0, 1)  # a share is nothing else


@pytest.fixture
def few_resamples(monkeypatch):
    """What many trials can wait for."""
    monkeypatch.setattr(comparing, "RESAMPLES", 500)


# Of a seed's ability, beside the 0.035 that 200 pictures have by chance.
SPREADS = (0.0, 0.02, 0.06)


def covered(trials, of):
    """Returns how often the interval that `of` returns for a trial's generator has the truth in it."""
    found = [of(np.random.default_rng(trial)) for trial in range(trials)]
    return np.mean([score.low <= truth <= score.high for score, truth in found])


@pytest.mark.parametrize("seeds", [3, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spread", SPREADS)
def test_an_interval_covers_the_truth_and_not_much_more(spread, seeds, few_resamples):
    """Of runs whose seeds have an ability of their own, around 0.5."""

    def one(rng):
        ability = rng.normal(0.5, spread, (seeds, 1))
        found = {"a": tallies(*(rng.random((seeds, 200)) < ability))}
        return Comparison(found, ["g"] * 200).score("a", "m"), 0.5

    assert 0.92 <= covered(200, one) <= 0.99


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize(
    "seeds", [(3, 2, 3, 1, 1, 3), pytest.param((3, 3, 3, 3, 3, 3), marks=pytest.mark.slow)]
)
def test_a_margin_covers_the_truth_and_not_much_more(seeds, spread, few_resamples):
    """Of runs that are alike but for their seeds, whose prompts are easy and hard for all of them, and of
    which each seed is better or worse for all."""

    def one(rng):
        easy_P, for_all_S = rng.normal(0.5, 0.15, 200), rng.normal(0, 0.05, 3)
        found = {}
        for run, n in zip("abcdef", seeds, strict=True):
            ability_Sx1 = (rng.normal(0, spread, n) + for_all_S[:n])[:, None]
            found[run] = tallies(*(rng.random((n, 200)) < easy_P + ability_Sx1))
        return Comparison(found, ["g"] * 200).find(CLAIM, "m").margin, 0

    assert 0.92 <= covered(200, one) <= 0.99


def test_seeds_that_every_run_has_widen_no_margin():
    """Where a seed does the same to all, nothing is left of it; a score has it in its interval."""
    low, high = np.arange(100) < 30, np.arange(100) < 70
    found = {run: tallies(low, high) for run in "ab"}
    compared = Comparison(found, ["g"] * 100)
    margin, score = compared.find(CLAIM, "m").margin, compared.score("a", "m")
    assert margin.high - margin.low < 1e-6 and score.high - score.low > 0.4


def test_the_spread_of_seeds_is_what_runs_do_not_share():
    """Two runs of equal prompts, in opposite order of seeds: 0.4 apart, each 0.2 from where it would be."""
    right = [np.arange(1000) % 10 < n for n in (3, 7, 7, 3)]
    compared = Comparison({"a": tallies(*right[:2]), "b": tallies(*right[2:])}, ["g"] * 1000)
    (spread,) = compared.spreads
    assert spread.runs == ("a", "b") and spread.freedom == 1
    assert spread.of["m"] == pytest.approx(np.sqrt(4 * 0.2**2 / spread.freedom), rel=0.02)


UNSTEADY = ("e", "f")


def with_unsteady(rng):
    """Six runs that are alike on average; the seeds of two differ much more."""
    for_all_S, found = rng.normal(0, 0.05, 3), {}
    for run in "abcdef":
        own_S = rng.normal(0, 0.12 if run in UNSTEADY else 0.02, 3)
        found[run] = tallies(*(rng.random((3, 200)) < (0.5 + own_S + for_all_S)[:, None]))
    return found


@pytest.mark.parametrize("claim", ["b > a", "e > a", "f > e"])
def test_runs_whose_seeds_differ_more_are_given_their_own_spread(claim, few_resamples):
    def one(rng):
        compared = Comparison(with_unsteady(rng), ["g"] * 200, UNSTEADY)
        return compared.find(claims.parse(claim), "m").margin, 0

    assert 0.92 <= covered(200, one) <= 0.99


def test_a_seeds_worth_is_told_by_steady_runs_alone_and_of_their_spread():
    found = with_unsteady(np.random.default_rng(0))
    among = {run: of for run, of in found.items() if run not in UNSTEADY}
    alone = Comparison(among, ["g"] * 200)
    steady, other = Comparison(found, ["g"] * 200, UNSTEADY).spreads
    assert (steady.runs, other.runs) == (tuple("abcd"), UNSTEADY)
    assert (steady.freedom, other.freedom) == (6, 4)
    assert (
        steady.of["m"] == pytest.approx(alone.spreads[0].of["m"], abs=1e-3) and other.of["m"] > 0.05
    )


def test_unsteady_runs_change_no_margin_of_the_others():
    """Nor what a seed is worth, which a run that lacks it is compared by."""
    right = {n: np.arange(100) < n for n in (10, 50, 40, 60, 70, 90)}
    steady = {"a": tallies(right[50], right[40]), "c": tallies(right[70], right[50])}
    steady["b"] = tallies(right[60])
    alone = Comparison(steady, ["g"] * 100).find(CLAIM, "m").margin.value
    beside = steady | {"e": tallies(right[10], right[90])}
    compared = Comparison(beside, ["g"] * 100, "e")
    assert compared.find(CLAIM, "m").margin.value == pytest.approx(alone, abs=1e-6)


def test_an_unsteady_run_of_one_seed_decides_nothing_and_is_no_surer_than_others():
    found = with_unsteady(np.random.default_rng(0))
    found["e"] = {0: found["e"][0]}
    del found["f"]
    compared = Comparison(found, ["g"] * 200, UNSTEADY)
    assert compared.find(claims.parse("e > a"), "m").verdict == "undecided: too few seeds"
    assert "too few" not in compared.find(CLAIM, "m").verdict
    one, three = compared.score("e", "m"), compared.score("a", "m")
    assert one.high - one.low > three.high - three.low


def test_prompts_of_one_unit_are_drawn_together():
    """Four copies of each prompt say no more than the prompts."""
    right = np.random.default_rng(0).random(60) < 0.5
    once = Comparison({"a": tallies(right)}, ["g"] * 60)
    four = dataclasses.replace(
        tallies(np.repeat(right, 4))[0], units=np.repeat(range(60), 4).tolist()
    )
    copied = Comparison({"a": {0: four}}, ["g"] * 240)
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
    assert one.margin.low > 0.7 and one.verdict == "undecided: too few seeds"
    two = Comparison({"a": tallies(low, low), "b": tallies(high, high)}, ["g"] * 400)
    assert two.find(CLAIM, "m").verdict == "holds"


def test_a_metric_of_one_prompt_is_not_scored_where_it_is_not_drawn():
    tally = Tally(np.array([1.0, 0, 0]), np.array([1.0, 0, 0]))
    score = Comparison({"a": {0: Tallies({"m": tally}, {})}}, ["g"] * 3).score("a", "m")
    assert (score.low, score.value, score.high) == (1, 1, 1)
