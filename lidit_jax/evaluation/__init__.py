"""Pictures on disk -> numbers. Imports no model of ours: a picture is judged by what it shows.

SUITES maps a name to a function of (pictures, references) that returns {score: value}, higher is
better. `references` are (captions, uint8 image) pairs of the training set, or None; a suite says
if it needs them.
"""

from collections.abc import Callable, Iterable

from lidit_jax.evaluation import recall, reconstruction, shapes
from lidit_jax.evaluation.pictures import Picture
from lidit_jax.evaluation.recall import Reference

Suite = Callable[[list[Picture], Iterable[Reference] | None], dict[str, float]]

SUITES: dict[str, Suite] = {
    "psnr": reconstruction.psnr,
    "recall": recall.recall,
    "shapes": shapes.score,
}
