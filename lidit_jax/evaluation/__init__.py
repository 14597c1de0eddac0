"""Pictures on disk -> numbers. Imports no model of ours: a picture is judged by what it shows.

    pictures                    a folder of samples          judges          models of others' that look
    recall  reconstruction      against known pictures       benchmarks      the paper's, and our world's
    shapes  seeing_scenes  judging_scenes  patches  silhouettes  colours  textures    exact judges of our worlds
    fid  clip_score             for curves of training       positional      by place in the prompt
    intervals  results  figures    how sure a number is, on disk, drawn

SUITES maps a name to a function of (pictures, references, judges) that returns {score: value}.
`references` are `recall.Reference`s of the training set, or None; `judges` those at hand;
a suite says what it needs of them. Benchmarks, with prompts of their own, are in `benchmarks.BENCHMARKS`.
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
