"""Judges: frozen third-party models that say what is in a picture. Run by transformers.

    records            the judges' interfaces and answers
    loading            a local folder -> model, tokenizer and image processor, and their identity
    mask2former        detector of fixed classes, with masks               GenEval's
    open_vocabulary    detectors of any words, without masks: OWLv2, Grounding DINO
    blip               answers questions                                   T2I-CompBench's
    qwen_vl, vilt      answer questions
    clip               embeds pictures and texts in one space              GenEval's, CLIPScore's
    tiny               one of each, with random weights; tiny_tokenizers, for them

torch and transformers are imported only when a judge is opened. Nothing is downloaded.
"""

import tempfile
from pathlib import Path

from lidit_jax.errors import unknown_name
from lidit_jax.evaluation.judges import loading, tiny
from lidit_jax.evaluation.judges.blip import Blip
from lidit_jax.evaluation.judges.clip import Clip
from lidit_jax.evaluation.judges.mask2former import Mask2Former
from lidit_jax.evaluation.judges.open_vocabulary import GroundingDino, Owlv2
from lidit_jax.evaluation.judges.qwen_vl import Qwen2VL
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.judges.vilt import Vilt

# field of Judges -> transformers class in a folder's config.json -> our class; the first one is
# "tiny"
CLASSES = {
    "detector": {
        "Mask2FormerForUniversalSegmentation": Mask2Former,
        "Owlv2ForObjectDetection": Owlv2,
        "GroundingDinoForObjectDetection": GroundingDino,
    },
    "vqa": {
        "BlipForQuestionAnswering": Blip,
        "Qwen2VLForConditionalGeneration": Qwen2VL,
        "ViltForQuestionAnswering": Vilt,
    },
    "clip": {"CLIPModel": Clip},
}
FIXED = ("Mask2FormerForUniversalSegmentation",)  # detectors that know only COCO's classes
TINY = "tiny"  # in place of a folder


def open_judges(folders: dict[str, str], any_words: bool = False) -> Judges:
    """Returns judges from local Hugging Face folders, by kind; the others are None.

    folders: "detector", "vqa" or "clip" -> a folder, or "tiny": a model with random weights,
      created on the spot to test a benchmark end to end. Its scores mean nothing.
    any_words: whether the detector must accept any words as classes.
    Raises InputError for another key, or a folder without a suitable model; see `loading`.
    """
    for kind in folders:
        if kind not in CLASSES:
            raise unknown_name("judge", kind, CLASSES)
    return Judges(**{kind: _opened(kind, folder, any_words) for kind, folder in folders.items()})


def _opened(kind: str, folder: str, any_words: bool):
    wanted = {n: c for n, c in CLASSES[kind].items() if not (any_words and n in FIXED)}
    if folder == TINY:
        with tempfile.TemporaryDirectory() as scratch:
            tiny.write(next(iter(wanted)), Path(scratch))
            return _opened(kind, scratch, any_words)
    path = Path(folder).expanduser()
    return wanted[loading.architecture(path, kind, wanted)](path)
