"""Scores with uncertainty: ratios of sums over prompts, with 95% bootstrap intervals."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

RESAMPLES = 2_000


@dataclasses.dataclass(frozen=True)
class Tally:
    """One metric: for each prompt, the sum of its values and their number.

    The metric is sum_P.sum() / count_P.sum(): a mean over pictures, questions or prompts, depending
    on what is counted. A prompt that the metric does not apply to has count 0.
    """

    sum_P: np.ndarray
    count_P: np.ndarray


@dataclasses.dataclass(frozen=True)
class Score:
    """A value and the bounds of its 95% interval."""

    value: float
    low: float
    high: float


def scores(
    tallies: Mapping[str, Tally],
    averages: Mapping[str, Sequence[str]],
    strata_P: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
    units_P: Sequence[int] | None = None,
) -> dict[str, Score]:
    """Returns each metric's score, and named unweighted means of metrics.

    Args:
      tallies: name -> metric, all over the same prompts.
      averages: name -> the metrics to average, e.g. {"overall": tags}.
      strata_P: for each prompt, the group that it is resampled within (a benchmark has a fixed
        number of each by design); None = one group. Prompts are drawn with replacement; each keeps
        its pictures.
      units_P: see `draws`.
    Raises ValueError for a metric that applies to no prompt, or for unequal lengths.
    """
    names = list(tallies)
    sum_MxP = np.stack([np.asarray(tallies[n].sum_P, float) for n in names])
    count_MxP = np.stack([np.asarray(tallies[n].count_P, float) for n in names])
    for name, counts in zip(names, count_MxP, strict=True):
        if not counts.sum() > 0:
            raise ValueError(f"metric {name!r} applies to no prompt")
    groups_P = [""] * sum_MxP.shape[1] if strata_P is None else strata_P
    times_RxP = draws(groups_P, resamples, np.random.default_rng(seed), units_P)
    values_M = sum_MxP.sum(axis=1) / count_MxP.sum(axis=1)
    drawn_RxM = np.stack([ratio(tallies[n], times_RxP) for n in names], axis=1)
    found = {n: score(values_M[i], drawn_RxM[:, i]) for i, n in enumerate(names)}
    for name, of in averages.items():
        rows = [names.index(n) for n in of]
        found[name] = score(values_M[rows].mean(), drawn_RxM[:, rows].mean(axis=1))
    return found


def ratio(tally: Tally, times_RxP: np.ndarray) -> np.ndarray:
    """Returns a metric in each resample, [resamples]; NaN where none of its prompts was drawn."""
    count_R = times_RxP @ tally.count_P
    return (times_RxP @ tally.sum_P) / np.where(count_R > 0, count_R, np.nan)


def score(value: float, drawn_R: np.ndarray) -> Score:
    """Returns a value with the 95% interval of its resampled values."""
    low, high = np.nanpercentile(drawn_R, (2.5, 97.5))
    return Score(float(value), float(low), float(high))


def draws(
    strata_P: Sequence[str],
    resamples: int,
    rng: np.random.Generator,
    units_P: Sequence[int] | None = None,
) -> np.ndarray:
    """Returns how often each prompt is drawn, [resamples, P]: from each group as many as it has.

    units_P: prompts of one unit, all in one group, are drawn together, e.g. the rotations of one
      set of things; None = each prompt is a unit of its own.
    """
    units_P = np.arange(len(strata_P)) if units_P is None else np.asarray(units_P)
    _, first_U, unit_P = np.unique(units_P, return_index=True, return_inverse=True)
    stratum_U = np.asarray(strata_P)[first_U]
    times_RxU = np.zeros((resamples, len(first_U)))
    for stratum in np.unique(stratum_U):
        members = np.flatnonzero(stratum_U == stratum)
        equal = np.full(len(members), 1 / len(members))
        times_RxU[:, members] = rng.multinomial(len(members), equal, size=resamples)
    return times_RxU[:, unit_P]
