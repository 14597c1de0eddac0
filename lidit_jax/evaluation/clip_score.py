"""CLIPScore: how similar a picture is to its prompt, according to CLIP (arXiv 2104.08718)."""

import itertools
from collections.abc import Iterable

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges.records import Embedder, Judges
from lidit_jax.evaluation.pictures import Picture

_BATCH = 64


def cosine(image: np.ndarray, text: str, clip: Embedder) -> float:
    """Returns the cosine similarity of a uint8 picture [height, width, 3] and a text, in [-1, 1].

    T2I-CompBench (arXiv 2307.06350, section 4) uses it as it is. CLIPScore's own paper clips it at
    0 and multiplies it by 2.5.
    """
    return float(clip.images([image])[0] @ clip.texts([text])[0])


def suite(pictures: list[Picture], references: object, judges: Judges) -> dict[str, float]:
    """Returns {"clip_score"} of pictures and their prompts.

    Raises InputError without judges.clip.
    """
    if judges.clip is None:
        raise InputError("clip_score needs CLIP; give --judges=clip=FOLDER")
    return {"clip_score": clip_score(((p.load(), p.prompt) for p in pictures), judges.clip)}


def clip_score(pairs: Iterable[tuple[np.ndarray, str]], clip: Embedder) -> float:
    """Returns the mean of 100 max(cosine, 0) over pictures and their prompts, for training curves.

    Pictures are uint8 [height, width, 3], of any size; one batch of them is in memory at a time.
    Raises ZeroDivisionError without pairs.
    """
    pairs, cosines = iter(pairs), []
    while batch := list(itertools.islice(pairs, _BATCH)):
        images, texts = zip(*batch)
        cosines += (clip.images(images) * clip.texts(texts)).sum(axis=1).tolist()
    return sum(100 * max(value, 0.0) for value in cosines) / len(cosines)
