"""Scores of runs, and of their differences, with 95% intervals over prompts and seeds."""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence

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

        Where fewer than two runs have a second seed, how much seeds differ is not known, and nothing is
        decided.
        """
        if not self.knows_seeds:
            return "undecided: too few seeds"
        if self.margin.low > 0:
            return "holds"
        return "fails" if self.margin.high < 0 else "undecided"


class Comparison:
    """All runs of a family, on the same prompts.

    For intervals, prompts are drawn anew within their group, the same ones for all runs. To each run and
    seed is added what another seed could make of it, taken to vary alike for all runs, also for one of a
    single seed (`_Fit.noise`).

    A score, a share, is the mean over a run's own seeds. A margin compares runs as if each had every seed, by a
    least-squares fit of one term for each run and one for each seed: runs of one seed have the same
    batches and noise, which makes all of them a little better or worse. Where all runs have the same
    seeds, a margin is the difference of scores.

    value: run -> metric -> value. spread: metric -> standard deviation of what seeds do to one run, beside
    what they do to all; 0 where it is not known. freedom: of how many degrees its estimate is.
    """

    def __init__(self, found: Mapping[str, Mapping[int, Tallies]], strata_P: Sequence[str]):
        """found: run -> seed -> tallies, at least one seed each. strata_P: the prompts' groups."""
        rng = np.random.default_rng(0)
        cells = [(run, seed) for run, of in found.items() for seed in of]  # N
        tallies = [found[run][seed] for run, seed in cells]
        times_RxP = draws(strata_P, RESAMPLES, rng, tallies[0].units)
        each = [_of_seed(t, times_RxP) for t in tallies]
        fits = {"score": _Fit(cells, with_seeds=False), "margin": _Fit(cells, with_seeds=True)}
        normal_NxR = rng.normal(size=(len(cells), RESAMPLES))
        chi_R = {of: rng.chisquare(max(fit.freedom, 1), RESAMPLES) for of, fit in fits.items()}
        self.freedom = fits["margin"].freedom
        estimate = np.array([float(self.freedom)])  # the mean of chi^2
        self.value: dict[str, dict[str, float]] = {run: {} for run in found}
        self.spread: dict[str, float] = {}
        # "score" or "margin" -> run -> metric -> as measured, and in resamples.
        self._of = {of: {run: {} for run in found} for of in fits}
        for metric in each[0]:
            measured_N = np.array([of[metric][0] for of in each])
            drawn_NxR = np.stack([of[metric][1] for of in each])
            for of, fit in fits.items():
                noise_R = np.sqrt(fit.noise(measured_N, drawn_NxR, chi_R[of]))
                values = fit.runs(measured_N), fit.runs(drawn_NxR + noise_R * normal_NxR)
                for run, value, drawn_R in zip(found, *values, strict=True):
                    self._of[of][run][metric] = value, drawn_R
            for run in found:
                self.value[run][metric] = float(self._of["score"][run][metric][0])
            self.spread[metric] = float(
                np.sqrt(fits["margin"].noise(measured_N, drawn_NxR, estimate)[0])
            )

    def score(self, run: str, metric: str) -> Score:
        value, drawn_R = self._of["score"][run][metric]
        return score(value, np.clip(drawn_R, 0, 1))

    def find(self, claim: Claim, metric: str) -> Finding:
        """Returns whether a claim holds of a metric."""
        of = {run: self._of["margin"][run][metric] for run in claim.runs}
        values, drawn = ({run: np.asarray(found[k]) for run, found in of.items()} for k in (0, 1))
        return Finding(score(float(claim.margin(values)), claim.margin(drawn)), self.freedom > 0)


class _Fit:
    """Least squares of N numbers, each of a run and a seed: a term for each run and, or not, each seed."""

    def __init__(self, cells: Sequence[tuple[Hashable, Hashable]], with_seeds: bool):
        runs_NxK, seeds_NxS = (_indicators(names) for names in zip(*cells, strict=True))
        terms = [runs_NxK]
        if with_seeds:  # their mean is 0
            terms.append(seeds_NxS[:, 1:] - seeds_NxS[:, :1])
        design_NxT = np.hstack(terms)
        inverse_TxN = np.linalg.pinv(design_NxT)
        self._runs_KxN = inverse_TxN[: runs_NxK.shape[1]]
        self._left_NxN = np.eye(len(cells)) - design_NxT @ inverse_TxN
        self.freedom = len(cells) - int(np.linalg.matrix_rank(design_NxT))

    def runs(self, of_N: np.ndarray) -> np.ndarray:
        """Returns each run's term, [K] or [K, resamples]."""
        return self._runs_KxN @ of_N

    def noise(self, measured_N, drawn_NxR, chi_R) -> np.ndarray:
        """Returns the variance that seeds add to a number beside that of prompts, drawn, [resamples].

        What the fit leaves has it and, since every seed's pictures differ, some of what prompts drawn anew
        make of them too, which intervals have already and is taken off. It is uncertain as freedom s^2 /
        chi^2 is, so that differences have Student's t.
        """
        if not self.freedom:
            return np.zeros_like(chi_R)
        left = self._left(measured_N) * self.freedom / chi_R
        return np.maximum(left - self._of_prompts(drawn_NxR), 0)

    def _left(self, of_N) -> np.ndarray:
        return (of_N * (self._left_NxN @ of_N)).sum(axis=0) / self.freedom

    def _of_prompts(self, drawn_NxR) -> float:
        about_NxR = drawn_NxR - np.nanmean(drawn_NxR, axis=1, keepdims=True)
        return float(np.nanmean(self._left(about_NxR)))


def _indicators(names: Sequence[Hashable]) -> np.ndarray:
    """Returns which of the distinct names, in the order of their first, each is: [N, K] of 0 and 1."""
    distinct = list(dict.fromkeys(names))
    return np.array([[name == other for other in distinct] for name in names], float)


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
