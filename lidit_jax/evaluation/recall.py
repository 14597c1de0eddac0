"""Is a picture nearest to the training picture of its own prompt? For memorised data sets."""

from collections.abc import Iterable

import numpy as np
from PIL import Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation.pictures import Picture

# captions, and uint8 [height, width, 3], or None for a picture that cannot be decoded
Reference = tuple[tuple[str, ...], np.ndarray | None]


_SIDE = 16  # pixels, the size that pictures are reduced to


def recall(pictures: list[Picture], references: Iterable[Reference] | None) -> dict[str, float]:
    """Returns {"top1", "top5"}: how often the prompt's own reference is among the 1 or 5 nearest.

    Distance is L2 in RGB, after area-averaging to 16 x 16 pixels. A reference is the
    prompt's own if the prompt is one of its captions. References that are the same picture (the
    flags of Norway and Svalbard) do not lower each other's rank.
    A picture is not judged if none of its prompt's references can be decoded; {"not_judged"} is the
    number of these, if any.
    Raises InputError without references, or if a prompt is not a caption of a reference.
    """
    owners: dict[str, list[int]] = {}
    shrunk = []
    for captions, image in references or ():
        owned = [owners.setdefault(caption, []) for caption in captions]
        if image is not None:
            for own in owned:
                own.append(len(shrunk))
            shrunk.append(_shrunk(image))
    if not shrunk:
        raise InputError(
            "recall needs references, the captions and pictures of a data set; "
            "give --config=configs/NAME.py"
        )
    for picture in pictures:
        if picture.prompt not in owners:
            raise InputError(
                f"{picture.path}: its prompt {picture.prompt!r} is not a caption of "
                "the references; recall can only judge prompts of the training set"
            )
    judged = [p for p in pictures if owners[p.prompt]]
    if not judged:
        raise InputError("no prompt has a reference that can be decoded; use other --samples")
    reference_RxP = np.stack(shrunk)
    ranks = np.array([_rank(p, owners[p.prompt], reference_RxP) for p in judged])
    scores = {f"top{k}": float(np.mean(ranks < k)) for k in (1, 5)}
    left_out = len(pictures) - len(judged)
    return scores | ({"not_judged": float(left_out)} if left_out else {})


def _rank(picture: Picture, owned: list[int], reference_RxP) -> int:
    """Returns how many references are nearer than the nearest of the prompt's own."""
    distance_R = np.sum((reference_RxP - _shrunk(picture.load())) ** 2, axis=1)
    return int(np.sum(distance_R < distance_R[owned].min()))


def _shrunk(image: np.ndarray) -> np.ndarray:
    small = Image.fromarray(image).resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(small, np.float32).ravel()
