"""BLIP-VQA: does a VQA judge see each noun chunk? (T2I-CompBench, arXiv 2307.06350, section 4)

A picture's score is the product of its chunks' P(yes), so that each attribute must go with its
noun.
"""

import math
from collections.abc import Sequence

from lidit_jax.evaluation.benchmarks.compbench.chunks import Parse

DROPPED = frozenset({"top", "the side", "the left", "the right"})  # chunks that are places
MOST = 8  # chunks
DECIMALS = 4  # in the published code's output
_REMOVED = str.maketrans("", "", '.!"()*#:;~')


def questions(parsed: Parse) -> list[str]:
    """Returns the first eight chunks that are not places, as questions: "a green bench?"."""
    kept = [chunk for chunk in parsed.chunks if chunk not in DROPPED][:MOST]
    return [f"{chunk}?".lower().translate(_REMOVED) for chunk in kept]


def score(p_yes: Sequence[float]) -> float:
    """Returns the product over the questions, in [0, 1]; with fewer chunks, missing factors are 1.

    As published, each factor and the product are rounded to 4 decimals.
    """
    return round(math.prod(round(p, DECIMALS) for p in p_yes), DECIMALS)
