"""Scores of runs, and of their differences, with 95% intervals over prompts and seeds."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lidit_jax.ablation.claims import Claim
from lidit_jax.evaluation.benchmarks.benchmark import Tallies
from lidit_jax.evaluation.intervals import RESAMPLES, Score, draws, ratio, score


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of a claim: its margin, and whether it is known how much seeds differ."""

    margin: Score
    knows_seeds: bool

    @property
    def verdict(self) -> str:
        """Returns "holds" or "fails" where the interval is on one side of zero; else "undecided".

        Where every run has one seed, nothing is known of how much seeds differ, which decides nothing.
        """
        if not self.knows_seeds:
            return "undecided: one seed"
        if self.margin.low > 0:
            return "holds"
        return "fails" if self.margin.high < 0 else "undecided"


class Comparison:
    """All runs of a family, on the same prompts.

    A value is the mean over a run's seeds. For its interval, prompts are drawn anew within their group,
    the same ones for all runs, since these are drawn from the same prompts. To each run is added what
    other seeds could make of it: noise of variance s^2 / seeds, where s^2 is the variance of a run's
    seeds, pooled over the runs as in a one-way analysis of variance, and drawn too, as
    freedom s^2 / chi^2, so that differences of runs have Student's t. So all runs are taken to vary alike
    from seed to seed, also one that has a single seed. Where all have one, intervals are over prompts alone.

    runs: their names. value: run -> metric -> value. spread: metric -> s, 0 where it is not known.
    freedom: how many seeds there are more than runs, from which s is known.
    """

    def __init__(self, found: Mapping[str, Sequence[Tallies]], strata_P: Sequence[str]):
        """found: of each run the tallies of its seeds, at least one. strata_P: the prompts' groups."""
        rng = np.random.default_rng(0)
        units_P = next(iter(found.values()))[0].units
        times_RxP = draws(strata_P, RESAMPLES, rng, units_P)
        each = {run: [_of_seed(t, times_RxP) for t in seeds] for run, seeds in found.items()}
        self.runs = list(found)
        self.freedom = sum(len(seeds) - 1 for seeds in each.values())
        scale_R = np.sqrt(self.freedom / rng.chisquare(max(self.freedom, 1), RESAMPLES))
        noise = {
            run: scale_R * rng.normal(size=RESAMPLES) / np.sqrt(len(seeds))
            for run, seeds in each.items()
        }
        self.value: dict[str, dict[str, float]] = {run: {} for run in found}
        self.spread: dict[str, float] = {}
        self._drawn: dict[str, dict[str, np.ndarray]] = {run: {} for run in found}
        for metric in next(iter(each.values()))[0]:
            self.spread[metric] = _spread([[of[metric][0] for of in s] for s in each.values()])
            for run, seeds in each.items():
                measured, drawn = zip(*(of[metric] for of in seeds), strict=True)
                self.value[run][metric] = float(np.mean(measured))
                self._drawn[run][metric] = np.mean(drawn, axis=0) + self.spread[metric] * noise[run]

    def score(self, run: str, metric: str) -> Score:
        return score(self.value[run][metric], self._drawn[run][metric])

    def find(self, claim: Claim, metric: str) -> Finding:
        """Returns whether a claim holds of a metric."""
        values = {run: np.asarray(self.value[run][metric]) for run in claim.runs}
        drawn = {run: self._drawn[run][metric] for run in claim.runs}
        margin = score(float(claim.margin(values)), claim.margin(drawn))
        return Finding(margin, self.freedom > 0)


def _spread(runs: Sequence[Sequence[float]]) -> float:
    """Returns the standard deviation of seeds within runs, of each the values of its seeds."""
    freedom = sum(len(of) - 1 for of in runs)
    return float(np.sqrt(sum(len(of) * np.var(of) for of in runs) / max(freedom, 1)))


def _of_seed(tallies: Tallies, times_RxP: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """Returns each metric, and mean of metrics: as measured, and where prompts are drawn anew."""
    found = {
        n: (t.sum_P.sum() / t.count_P.sum(), ratio(t, times_RxP))
        for n, t in tallies.metrics.items()
    }
    for name, of in tallies.averages.items():
        values, drawn = zip(*(found[n] for n in of), strict=True)
        found[name] = float(np.mean(values)), np.mean(drawn, axis=0)
    return found
