"""Scores of runs, and of their differences, with 95% intervals over prompts and seeds."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lidit_jax.ablation.claims import Claim
from lidit_jax.evaluation.benchmarks.benchmark import Tallies
from lidit_jax.evaluation.intervals import RESAMPLES, Score, draws, ratio, score


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of a claim: its margin, and how many seeds the run with the fewest of them has."""

    margin: Score
    seeds: int

    @property
    def verdict(self) -> str:
        """Returns "holds" or "fails" where the interval is on one side of zero; else "undecided".

        Of one seed nothing is known of how much seeds differ, so that it decides nothing.
        """
        if self.seeds < 2:
            return "undecided: one seed"
        if self.margin.low > 0:
            return "holds"
        return "fails" if self.margin.high < 0 else "undecided"


class Comparison:
    """All runs of a family, on the same prompts.

    A value is the mean over a run's seeds. For its interval, prompts are drawn anew within their group,
    the same ones for all runs, since these are drawn from the same prompts. To each run is added what
    another set of as many seeds could differ by: Student's t of n - 1 degrees of freedom, times the
    standard deviation of the seeds over sqrt(n). With one seed, intervals are over prompts alone.
    """

    def __init__(self, found: Mapping[str, Sequence[Tallies]], strata_P: Sequence[str]):
        """found: of each run the tallies of its seeds, at least one. strata_P: the prompts' groups."""
        rng = np.random.default_rng(0)
        units_P = next(iter(found.values()))[0].units
        times_RxP = draws(strata_P, RESAMPLES, rng, units_P)
        self.seeds = {run: len(tallies) for run, tallies in found.items()}
        self.value: dict[str, dict[str, float]] = {}
        self._drawn: dict[str, dict[str, np.ndarray]] = {}
        for run, seeds in found.items():
            t_R = (
                rng.standard_t(len(seeds) - 1, RESAMPLES) if len(seeds) > 1 else np.zeros(RESAMPLES)
            )
            self.value[run], self._drawn[run] = _values(seeds, times_RxP, t_R)

    @property
    def runs(self) -> list[str]:
        return list(self.value)

    def score(self, run: str, metric: str) -> Score:
        return score(self.value[run][metric], self._drawn[run][metric])

    def find(self, claim: Claim, metric: str) -> Finding:
        """Returns whether a claim holds of a metric."""
        values = {run: np.asarray(self.value[run][metric]) for run in claim.runs}
        drawn = {run: self._drawn[run][metric] for run in claim.runs}
        margin = score(float(claim.margin(values)), claim.margin(drawn))
        return Finding(margin, min(self.seeds[run] for run in claim.runs))


def _values(seeds: Sequence[Tallies], times_RxP: np.ndarray, t_R: np.ndarray):
    """Returns each metric's value, and what it is where other prompts and seeds are drawn."""
    each = [_of_seed(tallies, times_RxP) for tallies in seeds]
    value, drawn = {}, {}
    for name in each[0]:
        measured_S = np.array([of[name][0] for of in each])
        drawn_RxS = np.stack([of[name][1] for of in each], axis=1)
        value[name] = float(measured_S.mean())
        apart = measured_S.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else 0.0
        drawn[name] = drawn_RxS.mean(axis=1) + apart * t_R
    return value, drawn


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
