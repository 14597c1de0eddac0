"""Pictures on disk -> scores. Imports no model of ours: a picture is judged by what it shows.

    pictures                    a folder of samples       judges      third-party models
    recall  reconstruction      against known pictures    benchmarks  the paper's, and our world's
    fid  clip_score             for training curves       positional  by place in the prompt
    shapes  seeing_scenes  judging_scenes  patches        exact judges of our worlds
    silhouettes  colours  textures
    intervals  results  figures                           confidence intervals, results on disk,
                                                          figures

SUITES maps a name to a function of (pictures, references, judges) that returns {score: value}.
`references` are `recall.Reference`s of the training set, or None; `judges` are those available;
each suite documents what it needs, and its scores are finite. Benchmarks, with prompts of their
own, are in `benchmarks.BENCHMARKS`.
"""

from collections.abc import Callable, Iterable

from lidit_jax.evaluation import clip_score, fid, recall, reconstruction, shapes
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.pictures import Picture
from lidit_jax.evaluation.recall import Reference

Suite = Callable[[list[Picture], Iterable[Reference] | None, Judges], dict[str, float]]

SUITES: dict[str, Suite] = {
    "clip_score": clip_score.suite,
    "fid": fid.suite,
    "psnr": lambda pictures, references, judges: reconstruction.psnr(pictures),
    "recall": lambda pictures, references, judges: recall.recall(pictures, references),
    "shapes": lambda pictures, references, judges: shapes.score(pictures),
}
