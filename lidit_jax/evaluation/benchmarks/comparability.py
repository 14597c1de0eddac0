"""What makes our number another measure than a published one; told under every table."""

from collections.abc import Iterable, Mapping

# benchmark -> class of transformers, as judges' identities begin -> what it is in place of
SUBSTITUTES = {
    "geneval": {
        "Mask2FormerForUniversalSegmentation": "GenEval-HF: the detector is Mask2Former of transformers, "
        "with Meta's weights, not mmdetection's checkpoint",
        "Owlv2ForObjectDetection": "GenEval-OWLv2: the detector is OWLv2, which draws no masks, and for "
        "whose scores the thresholds were not made",
        "GroundingDinoForObjectDetection": "GenEval-DINO: the detector is Grounding DINO, which draws no "
        "masks, and for whose scores the thresholds were not made",
    },
    "compbench": {
        "Owlv2ForObjectDetection": "spatial-OV and numeracy-OV: the detector is OWLv2, not UniDet",
        "GroundingDinoForObjectDetection": "spatial-OV and numeracy-OV: the detector is "
        "Grounding DINO, not UniDet",
        "Qwen2VLForConditionalGeneration": "Qwen2-VL answers, not BLIP",
        "ViltForQuestionAnswering": "ViLT answers, not BLIP",
    },
    "positional": {
        "Qwen2VLForConditionalGeneration": "Qwen2-VL answers, not BLIP",
        "ViltForQuestionAnswering": "ViLT answers, not BLIP",
    },
    "dpg": {
        "BlipForQuestionAnswering": "DPG-blip: BLIP answers, not mPLUG",
        "Qwen2VLForConditionalGeneration": "DPG-qwen: Qwen2-VL answers, not mPLUG",
        "ViltForQuestionAnswering": "DPG-vilt: ViLT answers, not mPLUG",
    },
}

RANDOM = "a judge has random weights (tiny): the scores mean nothing"

CHUNKERS = {
    "rule": "chunker=rule: noun chunks are told by rules of ours, not by spaCy as published; how "
    "often the two agree was not measured",
    "spacy": "chunker=spacy: noun chunks are told by spaCy, whose version may not be the published one",
}


def notes(
    suite: str,
    judges: Mapping[str, str],
    tiny: bool,
    per_prompt: int,
    published: int,
    chunkers: Iterable[str] = (),
) -> list[str]:
    """Returns a line for each difference from how the published numbers were made.

    Args:
      suite: name of the benchmark.
      judges: what they do -> identity, "class:hash".
      tiny: whether one of them is of random weights.
      chunkers: keys of CHUNKERS, that made the questions.
      per_prompt, published: pictures of each prompt, here and in the published protocol.
    """
    told = SUBSTITUTES.get(suite, {})
    classes = [identity.partition(":")[0] for identity in judges.values()]
    lines = [
        f"{told[name]}; do not compare with published numbers" for name in classes if name in told
    ]
    lines += [CHUNKERS[chunker] for chunker in sorted(chunkers)]
    if tiny:
        lines.append(RANDOM)
    if per_prompt != published:
        lines.append(f"pictures of each prompt: {per_prompt}, where {published} are published")
    return lines
