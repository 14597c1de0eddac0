"""How scores of segments depend on their place in the prompt. Pure; for scores of any judge."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from lidit_jax.evaluation import intervals
from lidit_jax.evaluation.intervals import RESAMPLES, Score, Tally

BINS = 4  # quarters of a prompt, as in Fig. 3
QUARTERS = tuple(f"quarter_{k + 1}" for k in range(BINS))


@dataclasses.dataclass(frozen=True)
class Bias:
    """Some metrics of `tallies`, with 95% intervals: those of QUARTERS, slope and drop."""

    bins: tuple[Score, ...]
    slope: Score
    drop: Score


def tallies(scores: Sequence[Sequence[float]]) -> dict[str, Tally]:
    """Returns the metrics of segments' scores, in percent:

    quarter_1 to quarter_4   the mean score of the segments in each quarter of their prompts
    slope           change of these per quarter, by least squares
    drop            quarter_1 minus quarter_4
    relative_drop   the drop divided by quarter_1; left out if that is 0
    all_right       prompts in which every segment scores more than 1/2

    scores: for each prompt, its segments' scores in [0, 1], in the order of the prompt, each the
      mean over its pictures. Segment k of m, from 0, is in quarter floor(BINS (k + 1/2) / m), from
      0.
    Raises ValueError for a prompt without a segment in some quarter, e.g. with fewer than four.
    """
    mean_PxQ = np.stack([_of_quarters(of_prompt) for of_prompt in scores])
    first_P, ones_P = mean_PxQ[:, 0], np.ones(len(mean_PxQ))
    places_Q = np.arange(BINS) - (BINS - 1) / 2
    slope_P, drop_P = mean_PxQ @ places_Q / (places_Q @ places_Q), first_P - mean_PxQ[:, -1]
    right_P = np.array([min(of_prompt) > 0.5 for of_prompt in scores])
    means = dict(zip(QUARTERS, mean_PxQ.T, strict=True)) | {"slope": slope_P, "drop": drop_P}
    told = {name: Tally(100 * values_P, ones_P) for name, values_P in means.items()}
    if first_P.any():
        told["relative_drop"] = Tally(100 * drop_P, first_P)
    return told | {"all_right": Tally(100 * right_P, ones_P)}


def _of_quarters(scores: Sequence[float]) -> np.ndarray:
    """Returns the mean score of a prompt's segments in each of its quarters, [BINS]."""
    quarters = (BINS * (np.arange(len(scores)) + 0.5) / len(scores)).astype(int)
    count_Q = np.bincount(quarters, minlength=BINS)
    if not count_Q.all():
        empty = " and ".join(QUARTERS[k] for k in np.flatnonzero(count_Q == 0))
        raise ValueError(
            f"a prompt with {len(scores)} segments has none in {empty}; want {BINS} or more"
        )
    return np.bincount(quarters, scores, BINS) / count_Q


def estimate(
    scores: Sequence[Sequence[float]], bases: Sequence[int], resamples: int = RESAMPLES
) -> Bias:
    """Returns the bias of segments' scores, which are as in `tallies`.

    bases: for each prompt, the set of segments that it rotates; rotations are resampled together.
    """
    told = {n: t for n, t in tallies(scores).items() if n in (*QUARTERS, "slope", "drop")}
    return of_scores(intervals.scores(told, {}, resamples=resamples, units_P=bases))


def of_scores(scores: Mapping[str, Score]) -> Bias:
    """Returns the bias from scores with the names of `tallies`."""
    return Bias(tuple(scores[name] for name in QUARTERS), scores["slope"], scores["drop"])
