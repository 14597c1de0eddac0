"""How scores of segments depend on their place in the prompt. Pure; whoever scored them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from lidit_jax.evaluation.intervals import RESAMPLES, Score, draws, score

BINS = 4  # quarters of a prompt, as in Fig. 3


@dataclasses.dataclass(frozen=True)
class Bias:
    """Scores in percent, with 95% intervals.

    bins: mean score of the segments in each quarter of their prompt. slope: of the bins, a bin.
    drop: first bin less last. relative_drop: of the first bin, as a share; NaN where that is 0.
    all_right: prompts every segment of which scores more than 1/2.
    """

    bins: tuple[Score, ...]
    slope: Score
    drop: Score
    relative_drop: Score
    all_right: Score


def estimate(
    scores: Sequence[Sequence[float]],
    bases: Sequence[int],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bias:
    """Returns the bias of segments' scores.

    Args:
      scores: of each prompt, its segments' scores in [0, 1], each the mean over the prompt's pictures, in
        the order of the prompt. Segment k of m, from 0, is in bin floor(BINS (k + 1/2) / m).
      bases: of each prompt, the set of segments that it is a rotation of; rotations are drawn together.
    Raises ValueError if no prompt has a segment in some bin, or the lengths differ.
    """
    if len(scores) != len(bases):
        raise ValueError(f"{len(scores)} prompts' scores, {len(bases)} bases")
    sum_PxB, count_PxB = np.zeros((2, len(scores), BINS))
    for of_prompt, sums, counts in zip(scores, sum_PxB, count_PxB, strict=True):
        bins = (BINS * (np.arange(len(of_prompt)) + 0.5) / len(of_prompt)).astype(int)
        np.add.at(sums, bins, of_prompt)
        np.add.at(counts, bins, 1)
    if not count_PxB.any(axis=0).all():
        raise ValueError(f"no prompt has a segment in each of {BINS} bins")
    times_RxP = draws([""] * len(scores), resamples, np.random.default_rng(seed), bases)
    right_P = np.array([min(of_prompt) > 0.5 for of_prompt in scores], float)
    every_RxP = np.vstack([np.ones(len(scores)), times_RxP])  # the first is what was measured
    bins_RxB = 100 * (every_RxP @ sum_PxB) / np.maximum(every_RxP @ count_PxB, 1e-9)
    drop_R = bins_RxB[:, 0] - bins_RxB[:, -1]
    places_B = np.arange(BINS) - (BINS - 1) / 2
    found = {
        "slope": bins_RxB @ places_B / (places_B @ places_B),
        "drop": drop_R,
        "all_right": 100 * (every_RxP @ right_P) / every_RxP.sum(axis=1),
    }
    bins = tuple(score(values_R[0], values_R[1:]) for values_R in bins_RxB.T)
    relative = Score(np.nan, np.nan, np.nan)
    if bins[0].value > 0:
        first_R = np.where(bins_RxB[:, 0] > 0, bins_RxB[:, 0], np.nan)
        relative = score(drop_R[0] / first_R[0], drop_R[1:] / first_R[1:])
    kept = {name: score(values_R[0], values_R[1:]) for name, values_R in found.items()}
    return Bias(bins, relative_drop=relative, **kept)
