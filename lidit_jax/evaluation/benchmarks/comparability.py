"""What makes our number differ from the published measure; printed below every table.

If a score comes from a judge other than the published one, the paper's number is not shown next to
it. For a Mask2Former that differs only in its weights, there is a note, and the number is shown.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence

from lidit_jax.evaluation.benchmarks.compbench.chunks import AGREEING

ALL = None  # scores


@dataclasses.dataclass(frozen=True)
class Substitute:
    """A note on the judge that one replaces, and the scores that are incomparable because of it."""

    told: str
    scores: tuple[str, ...] | None = ALL


_COMPBENCH_VQA = ("color", "shape", "texture", "complex", "t2i_avg")
_COMPBENCH_DETECTOR = ("spatial", "numeracy", "complex")
# benchmark -> class of transformers, with which judges' identities begin -> what it replaces
SUBSTITUTES = {
    "geneval": {
        "Mask2FormerForUniversalSegmentation": Substitute(
            "GenEval-HF: the detector is transformers' Mask2Former with Meta's weights, not "
            "mmdetection's checkpoint",
            (),
        ),
        "Owlv2ForObjectDetection": Substitute(
            "GenEval-OWLv2: the detector is OWLv2, which has no masks, may detect "
            "an object more than once, and is not what the thresholds were made for"
        ),
        "GroundingDinoForObjectDetection": Substitute(
            "GenEval-DINO: the detector is Grounding DINO, which has no masks, may "
            "detect an object more than once, and is not what the thresholds were made for"
        ),
    },
    "compbench": {
        "Owlv2ForObjectDetection": Substitute(
            "spatial-OV and numeracy-OV: the detector is OWLv2, not UniDet", _COMPBENCH_DETECTOR
        ),
        "GroundingDinoForObjectDetection": Substitute(
            "spatial-OV and numeracy-OV: the detector is Grounding DINO, not UniDet",
            _COMPBENCH_DETECTOR,
        ),
        "Qwen2VLForConditionalGeneration": Substitute("Qwen2-VL answers, not BLIP", _COMPBENCH_VQA),
        "ViltForQuestionAnswering": Substitute("ViLT answers, not BLIP", _COMPBENCH_VQA),
    },
    "positional": {
        "Qwen2VLForConditionalGeneration": Substitute("Qwen2-VL answers, not BLIP"),
        "ViltForQuestionAnswering": Substitute("ViLT answers, not BLIP"),
    },
    "dpg": {
        "BlipForQuestionAnswering": Substitute("DPG-blip: BLIP answers, not mPLUG"),
        "Qwen2VLForConditionalGeneration": Substitute("DPG-qwen: Qwen2-VL answers, not mPLUG"),
        "ViltForQuestionAnswering": Substitute("DPG-vilt: ViLT answers, not mPLUG"),
    },
}
_BLIP = "768/16/384"  # as in its folder; its input here is 480 pixels
# benchmark -> class of transformers -> the published judge's size, as in identities, and the scores
# that depend on it
SIZES = {
    "geneval": {
        "CLIPModel": ("1024/14/224", ("overall", "colors", "color_attr")),
        "Mask2FormerForUniversalSegmentation": ("swin 96/2-2-18-2", ALL),
    },
    "compbench": {
        "CLIPModel": ("768/32/224", ("non_spatial", "complex")),
        "BlipForQuestionAnswering": (_BLIP, _COMPBENCH_VQA),
    },
    "positional": {"BlipForQuestionAnswering": (_BLIP, ALL)},
}

RANDOM = "a judge has random weights (tiny): the scores mean nothing"

CHUNKERS = {
    "rule": "chunker=rule: noun chunks are found by our rules, not by spaCy as published; judges "
    "are asked the same with both for, of 300 prompts each, "
    + ", ".join(f"{count} of {category}" for category, count in AGREEING.items()),
    "spacy": "chunker=spacy: noun chunks are found by spaCy; "
    "its version may not be the published one",
}


def judge_differences(
    suite: str, judges: Collection[str], tiny: bool
) -> dict[str, tuple[str, ...] | None]:
    """Returns a note per judge that is not the published one -> the scores that do not compare.

    judges: identities, "class size:hash". tiny: whether one of them has random weights.
    """
    differ = {RANDOM: ALL} if tiny else {}
    for identity in judges:
        name, _, size = identity.partition(":")[0].partition(" ")
        if substitute := SUBSTITUTES.get(suite, {}).get(name):
            more = "" if substitute.scores == () else "; not comparable with published numbers"
            differ[substitute.told + more] = substitute.scores
        published, scores = SIZES.get(suite, {}).get(name, (size, ALL))
        if size != published and not tiny:
            differ[f"the {name} has size {size}, the published one {published}"] = scores
    return differ


def notes(
    differ: Iterable[str],
    per_prompt: int,
    published: int,
    chunkers: Iterable[str] = (),
    alike: Sequence[str] = (),
) -> list[str]:
    """Returns a line for each difference from the published protocol, and one for `alike` scores.

    Args:
      differ: from `judge_differences`.
      per_prompt, published: pictures per prompt, here and in the published protocol.
      chunkers: keys of CHUNKERS that made the questions.
      alike: names of scores that are the same in all resamples of prompts.
    """
    lines = [*differ, *(CHUNKERS[chunker] for chunker in sorted(chunkers))]
    if per_prompt != published:
        lines.append(f"pictures per prompt: {per_prompt}, not {published} as published")
    if alike:
        lines.append(
            f"{', '.join(alike)}: the same in all resamples of prompts, so that there "
            "is no interval; if all of n are wrong, up to 3/n of others may be right"
        )
    return lines


def comparable(
    paper: Mapping[str, Mapping[str, float]], differ: Mapping[str, Collection[str] | None]
) -> dict[str, dict[str, float]]:
    """Returns the paper's rows without the scores that are not comparable with ours."""
    if ALL in differ.values():
        return {row: {} for row in paper}
    others = {name for scores in differ.values() for name in scores}
    return {
        row: {name: value for name, value in of.items() if name not in others}
        for row, of in paper.items()
    }
