"""Scores of runs, and of their differences, with 95% intervals over prompts and seeds."""

import dataclasses
from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from lidit_jax.ablation.claims import Claim
from lidit_jax.evaluation.benchmarks.benchmark import Tallies
from lidit_jax.evaluation.intervals import RESAMPLES, Score, draws, ratio, score

_LITTLE = 1e-4  # square root of the weight of unsteady runs where steady runs determine a term


@dataclasses.dataclass(frozen=True)
class Finding:
    """The result for a claim: its margin, and whether the variation between seeds is known."""

    margin: Score
    knows_seeds: bool

    @property
    def verdict(self) -> str:
        """Returns "holds" or "fails" where the interval is on one side of zero; else "undecided".

        If fewer than two runs have a second seed, the variation between seeds is not known, and
        nothing is decided.
        """
        if not self.knows_seeds:
            return "undecided: too few seeds"
        if self.margin.low > 0:
            return "holds"
        return "fails" if self.margin.high < 0 else "undecided"


@dataclasses.dataclass(frozen=True)
class Spread:
    """Standard deviation of a seed's effect on one of these runs, beyond its effect on all runs.

    of: metric -> share. freedom: degrees of freedom of the estimate; with 0, nothing is known.
    """

    runs: tuple[str, ...]
    freedom: int
    of: Mapping[str, float]


class Comparison:
    """All runs of a family, on the same prompts.

    For intervals, prompts are resampled within their group, the same ones for all runs. Each run
    and seed also gets noise for what another seed could change (`_Fit.noise`). Its variance is
    assumed to be the same for all runs, including runs with a single seed; runs listed as unsteady
    share a variance of their own.

    A score, a share, is the mean over a run's own seeds. A margin compares runs as if each had
    every seed, by a least-squares fit with one term for each run and one for each seed: runs of one
    seed have the same batches and noise, which makes all of them a little better or worse. The
    steady runs determine by how much. Where all runs have the same seeds, a margin is the
    difference of scores.

    value: run -> metric -> value. by_seed: run -> seed -> metric -> value. spreads: one for the
    steady runs and one for the others, if there are any.
    """

    def __init__(
        self,
        found: Mapping[str, Mapping[int, Tallies]],
        strata_P: Sequence[str],
        unsteady: Collection[str] = (),
    ):
        """found: run -> seed -> tallies, at least one seed each. strata_P: the prompts' groups.

        unsteady: runs whose seeds vary more, or less, than those of the others.
        """
        rng = np.random.default_rng(0)
        cells = [(run, seed) for run, of in found.items() for seed in of]  # N
        tallies = [found[run][seed] for run, seed in cells]
        times_RxP = draws(strata_P, RESAMPLES, rng, tallies[0].units)
        each = [_of_seed(t, times_RxP) for t in tallies]
        apart_N = np.array([run in unsteady for run, _ in cells])
        fits = {"score": _Fit(cells, apart_N, False), "margin": _Fit(cells, apart_N, True)}
        normal_NxR = rng.normal(size=(len(cells), RESAMPLES))
        chi_GxR = {
            of: np.array([rng.chisquare(max(n, 1), RESAMPLES) for n in fit.freedom_G])
            for of, fit in fits.items()
        }
        self.value: dict[str, dict[str, float]] = {run: {} for run in found}
        self.by_seed: dict[str, dict[int, dict[str, float]]] = {run: {} for run in found}
        for (run, seed), of in zip(cells, each, strict=True):
            self.by_seed[run][seed] = {metric: float(value) for metric, (value, _) in of.items()}
        spread: list[dict[str, float]] = [{}, {}]
        # "score" or "margin" -> run -> metric -> (measured value, values in resamples).
        self._of = {of: {run: {} for run in found} for of in fits}
        for metric in each[0]:
            measured_N = np.array([of[metric][0] for of in each])
            drawn_NxR = np.stack([of[metric][1] for of in each])
            for of, fit in fits.items():
                noise_NxR = np.sqrt(fit.noise(measured_N, drawn_NxR, chi_GxR[of])[fit.group_N])
                values = fit.runs(measured_N), fit.runs(drawn_NxR + noise_NxR * normal_NxR)
                for run, value, drawn_R in zip(found, *values, strict=True):
                    self._of[of][run][metric] = value, drawn_R
            for run in found:
                self.value[run][metric] = float(self._of["score"][run][metric][0])
            fit = fits["margin"]
            mean_Gx1 = np.maximum(fit.freedom_G, 1.0)[:, None]  # of chi^2
            for told, noise in zip(spread, fit.noise(measured_N, drawn_NxR, mean_Gx1)[:, 0]):
                told[metric] = float(np.sqrt(noise))
        groups = [[r for r in found if r not in unsteady], [r for r in found if r in unsteady]]
        self.spreads = [
            Spread(tuple(runs), int(freedom), of)
            for runs, freedom, of in zip(groups, fits["margin"].freedom_G, spread)
            if runs
        ]

    def score(self, run: str, metric: str) -> Score:
        value, drawn_R = self._of["score"][run][metric]
        return score(value, np.clip(drawn_R, 0, 1))

    def find(self, claim: Claim, metric: str) -> Finding:
        """Returns whether a claim holds for a metric."""
        of = {run: self._of["margin"][run][metric] for run in claim.runs}
        values, drawn = ({run: np.asarray(found[k]) for run, found in of.items()} for k in (0, 1))
        known = all(spread.freedom for spread in self.spreads if claim.runs & set(spread.runs))
        return Finding(score(float(claim.margin(values)), claim.margin(drawn)), known)


class _Fit:
    """Least-squares fit of N numbers, each of a run and a seed: a term per run, maybe one per seed.

    There are two groups of numbers: those of steady runs, and the others, which do not affect a
    seed's term if a steady run has that seed. group_N: the group of each number, 0 or 1. freedom_G:
    degrees of freedom of each group's residuals.
    """

    def __init__(
        self, cells: Sequence[tuple[Hashable, Hashable]], apart_N: np.ndarray, with_seeds: bool
    ):
        runs_NxK, seeds_NxS = (_indicators(names) for names in zip(*cells, strict=True))
        terms = [runs_NxK]
        if with_seeds:  # their mean is 0
            terms.append(seeds_NxS[:, 1:] - seeds_NxS[:, :1])
        design_NxT = np.hstack(terms)
        weight_N = np.where(apart_N, _LITTLE, 1.0)
        inverse_TxN = np.linalg.pinv(weight_N[:, None] * design_NxT) * weight_N
        self._runs_KxN = inverse_TxN[: runs_NxK.shape[1]]
        self._left_NxN = np.eye(len(cells)) - design_NxT @ inverse_TxN
        self.group_N = apart_N.astype(int)
        self._in_GxN = np.stack([~apart_N, apart_N]).astype(float)
        own_GxG = self._in_GxN @ self._left_NxN**2 @ self._in_GxN.T
        self.freedom_G = np.round(np.diag(own_GxG))

    def runs(self, of_N: np.ndarray) -> np.ndarray:
        """Returns each run's term, [K] or [K, resamples]."""
        return self._runs_KxN @ of_N

    def noise(self, measured_N, drawn_NxR, chi_GxR) -> np.ndarray:
        """Returns the variance that seeds add to a number of each group; [2, resamples].

        The residuals of the fit contain it. Since every seed's pictures differ, they also contain
        some variance from resampling prompts, which the intervals already include and which is
        subtracted. The estimate is distributed as freedom s^2 / chi^2, so that differences follow
        Student's t. A group of which nothing is known gets the other's variance.
        """
        left_Gx1, freedom_Gx1 = self._left(measured_N[:, None]), self.freedom_G[:, None]
        about_NxR = drawn_NxR - np.nanmean(drawn_NxR, axis=1, keepdims=True)
        of_prompts_Gx1 = np.nanmean(self._left(about_NxR), axis=1, keepdims=True)
        noise_GxR = np.maximum(left_Gx1 * freedom_Gx1 / chi_GxR - of_prompts_Gx1, 0)
        known_G = self.freedom_G > 0
        return (
            noise_GxR
            if known_G.all()
            else np.broadcast_to(noise_GxR[known_G].sum(axis=0), noise_GxR.shape)
        )

    def _left(self, of_NxR: np.ndarray) -> np.ndarray:
        """Returns the mean square of each group's residuals, [2, R]; 0 where nothing is known."""
        left_NxR = self._left_NxN @ of_NxR
        return self._in_GxN @ left_NxR**2 / np.maximum(self.freedom_G, 1)[:, None]


def _indicators(names: Sequence[Hashable]) -> np.ndarray:
    """Returns which distinct name, in order of first occurrence, each is: [N, K] of 0 and 1."""
    distinct = list(dict.fromkeys(names))
    return np.array([[name == other for other in distinct] for name in names], float)


def _of_seed(tallies: Tallies, times_RxP: np.ndarray) -> dict[str, tuple[float, np.ndarray]]:
    """Returns each metric, and mean of metrics: the measured value, and values in resamples."""
    found = {
        n: (t.sum_P.sum() / t.count_P.sum(), ratio(t, times_RxP))
        for n, t in tallies.metrics.items()
    }
    for name, of in tallies.averages.items():
        values, drawn = zip(*(found[n] for n in of), strict=True)
        found[name] = float(np.mean(values)), np.mean(drawn, axis=0)
    return found
