"""Scores of runs, and of their differences, with 95% intervals over prompts and seeds."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lidit_jax.ablation.claims import Claim
from lidit_jax.evaluation.benchmarks.benchmark import Tallies
from lidit_jax.evaluation.intervals import RESAMPLES, Score, draws, score


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of a claim: its margin, and "holds", "fails" or "undecided" by the interval's sign."""

    margin: Score

    @property
    def verdict(self) -> str:
        if self.margin.low > 0:
            return "holds"
        return "fails" if self.margin.high < 0 else "undecided"


class Comparison:
    """All runs of a family, on the same prompts.

    A value is the mean over a run's seeds. For its interval, prompts are drawn anew within their group,
    the same ones for all runs, since these are drawn from the same prompts; and each run's seeds are
    drawn anew. So few seeds differ less from their own mean than from that of all seeds there could be:
    their deviations are enlarged by sqrt(n / (n - 1)). With one seed nothing is known of that.
    """

    def __init__(
        self,
        found: Mapping[str, Sequence[Tallies]],
        strata_P: Sequence[str],
        units_P: Sequence[int] | None = None,
        resamples: int = RESAMPLES,
    ):
        """found: of each run the tallies of its seeds, at least one. strata_P, units_P: see `draws`."""
        rng = np.random.default_rng(0)
        times_RxP = draws(strata_P, resamples, rng, units_P)
        self.value: dict[str, dict[str, float]] = {}
        self._drawn: dict[str, dict[str, np.ndarray]] = {}
        for run, seeds in found.items():
            chosen_RxS = rng.integers(len(seeds), size=(resamples, len(seeds)))
            self.value[run], self._drawn[run] = _values(seeds, times_RxP, chosen_RxS)

    @property
    def runs(self) -> list[str]:
        return list(self.value)

    def score(self, run: str, metric: str) -> Score:
        return score(self.value[run][metric], self._drawn[run][metric])

    def find(self, claim: Claim, metric: str) -> Finding:
        """Returns whether a claim holds of a metric."""
        values = {run: np.asarray(self.value[run][metric]) for run in claim.runs}
        drawn = {run: self._drawn[run][metric] for run in claim.runs}
        return Finding(score(float(claim.margin(values)), claim.margin(drawn)))


def _values(seeds: Sequence[Tallies], times_RxP, chosen_RxS):
    """Returns each metric's value, and as often as prompts and seeds are drawn."""
    count = len(seeds)
    enlarged = np.sqrt(count / (count - 1)) if count > 1 else 1.0
    value, drawn = {}, {}
    for name in seeds[0].metrics:
        tallies = [s.metrics[name] for s in seeds]
        value[name] = float(np.mean([t.sum_P.sum() / t.count_P.sum() for t in tallies]))
        each_RxS = np.stack(
            [(times_RxP @ t.sum_P) / np.maximum(times_RxP @ t.count_P, 1) for t in tallies], axis=1
        )
        mean_R = each_RxS.mean(axis=1)
        chosen_R = np.take_along_axis(each_RxS, chosen_RxS, axis=1).mean(axis=1)
        drawn[name] = mean_R + enlarged * (chosen_R - mean_R)
    for name, of in seeds[0].averages.items():
        value[name] = float(np.mean([value[n] for n in of]))
        drawn[name] = np.mean([drawn[n] for n in of], axis=0)
    return value, drawn
