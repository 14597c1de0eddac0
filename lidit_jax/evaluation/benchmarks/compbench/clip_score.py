"""CLIPScore: how near a picture is to its prompt (T2I-CompBench, arXiv 2307.06350, section 4)."""

import numpy as np

from lidit_jax.evaluation.judges.records import Embedder


def score(image: np.ndarray, text: str, clip: Embedder) -> float:
    """Returns the cosine of a uint8 picture [height, width, 3] and a text, in [-1, 1].

    It is the cosine itself, neither cut at 0 nor times 2.5, as in CLIPScore's own paper.
    """
    return float(clip.images([image])[0] @ clip.texts([text])[0])
