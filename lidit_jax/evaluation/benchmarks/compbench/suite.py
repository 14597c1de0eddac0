"""T2I-CompBench: do attributes go with their objects, and are relations and numbers right?"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from lidit_jax.evaluation import clip_score
from lidit_jax.evaluation.benchmarks import prompt_files
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record, Tallies
from lidit_jax.evaluation.benchmarks.compbench import attributes, numeracy, spatial
from lidit_jax.evaluation.benchmarks.compbench.chunks import parse
from lidit_jax.evaluation.benchmarks.compbench.detections import detect
from lidit_jax.evaluation.intervals import Tally
from lidit_jax.evaluation.judges.records import Judges

ATTRIBUTES = ("color", "shape", "texture")
CATEGORIES = (*ATTRIBUTES, "spatial", "non_spatial", "numeracy", "complex")
_TABLE = {
    "SD v1.5": (37.50, 37.24, 41.59, 12.04),
    "SD v2": (50.65, 42.21, 49.22, 13.42),
    "SDXL": (63.69, 54.08, 56.37, 20.32),
    "DALL-E 2": (57.50, 54.64, 63.74, 12.83),
    "PixArt-α": (68.86, 55.82, 70.44, 20.82),
    "LI-DiT-1B": (74.08, 59.34, 69.59, 27.57),
    "DALL-E 3": (81.10, 67.50, 80.70),
    "LI-DiT-10B": (83.78, 68.03, 78.50, 39.69),
}
# What is asked about a picture, by category, or by kind of complex prompt; its score is their mean.
_ASKED = {
    **dict.fromkeys(ATTRIBUTES, ("questions",)),
    "spatial": ("pair",),
    "non_spatial": ("text",),
    "numeracy": ("counts",),
    "complex spatial": ("questions", "pair"),
    "complex action": ("questions", "text"),
    "complex both": ("questions", "pair", "text"),
}
_NOTES = {
    "numeracy": "numeracy: objects are the nouns after numbers; "
    "the published code has a list of names",
    "complex": "complex: a prompt's kind is determined by rule, 213 action, "
    "58 spatial and 29 both; in the published files it is 212, 58 and 30",
}
_AT_REST = re.compile(rf"\b(?:is|are|was|were) (?:{'|'.join(spatial.LOCALITIES)})\b")


class CompBench:
    """T2I-CompBench, arXiv 2307.06350. Metrics are means over pictures, printed times 100:

    color, shape, texture   BLIP-VQA (`attributes`)
    spatial                 spatial-OV: two objects in a relation (`spatial`)
    non_spatial             CLIPScore (`clip_score`)
    numeracy                numeracy-OV: the number of each object (`numeracy`)
    complex                 3-in-1: the mean of BLIP-VQA with spatial, CLIPScore, or both
    t2i_avg                 the mean of color, shape and texture

    3d_spatial is left out, since it needs a depth judge. Items and records say which chunker made
    the questions, "rule" or "spacy" (`chunks`): compare only numbers with the same chunker.

    In complex, the published code takes a prompt's kind from separate files: 212 action, 58
    spatial, 30 both. Here it is determined by rule (`complex_kind`): 213, 58 and 29.

    The modes differ only in complex prompts: "fixed" has a rule for "on top of".
    """

    official = True
    version = 3  # since 3, a complex prompt's objects are around its phrase, as published
    per_prompt = 10
    judges = ("vqa", "detector", "clip")
    modes = True
    any_words = True
    paper = {row: dict(zip((*ATTRIBUTES, "spatial"), of)) for row, of in _TABLE.items()}

    def items(self, folder: Path) -> list[Item]:
        """Returns the 300 prompts of each category, from <category>_val.txt in a folder.

        meta has what judges are asked, depending on the category: "questions", the "text" for CLIP,
        the "pair" of objects (None if a noun is missing), the "counts" [[object, count], ...]; and
        "chunker".
        Raises InputError if a file is missing or is not the published one.
        """
        texts = {c: prompt_files.read_lines(folder, prompt_files.COMPBENCH[c]) for c in CATEGORIES}
        return [item(c, k, text) for c in CATEGORIES for k, text in enumerate(texts[c])]

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns {"chunker"} and the judges' answers to the item's meta:

        "vqa" [[question, P(yes)], ...]; "clip" a cosine; "found" [[label, score, box], ...], best
        first, with the "size" [height, width] of the picture.
        """
        asked = item.meta
        record: Record = {"chunker": asked["chunker"]}
        if "questions" in asked:
            answers = judges.vqa.ask(image, asked["questions"])
            told = zip(asked["questions"], answers, strict=True)
            record["vqa"] = [[question, answer.p_yes] for question, answer in told]
        if "text" in asked:
            record["clip"] = clip_score.cosine(image, asked["text"], judges.clip)
        if "pair" in asked or "counts" in asked:
            labels = asked.get("pair") or [name for name, _ in asked.get("counts", ())]
            record["found"] = detect(judges.detector, image, labels)
            record["size"] = list(image.shape[:2])
        return record

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics of the class, for the categories that have prompts."""
        sum_P = np.array([sum(_value(i, r, mode) for r in of) for i, of in zip(items, records)])
        drawn_P = np.array([len(of) for of in records], float)
        group_P = np.array([item.group for item in items])
        metrics = {
            c: Tally(sum_P * (group_P == c), drawn_P * (group_P == c))
            for c in CATEGORIES
            if c in group_P
        }
        averages = {"t2i_avg": ATTRIBUTES} if metrics.keys() >= set(ATTRIBUTES) else {}
        notes = [note for category, note in _NOTES.items() if category in metrics]
        return Tallies(metrics, averages, scale=100, notes=notes)


def item(category: str, k: int, text: str) -> Item:
    """Returns the k-th prompt of a category, with what judges are asked about it."""
    parsed = parse(text)
    kind = f"complex {complex_kind(text)}" if category == "complex" else category
    asks: dict[str, Callable[[], Any]] = {
        "questions": lambda: attributes.questions(parsed),
        "text": lambda: parsed.without_adjectives() if category == "complex" else text,
        "pair": lambda: spatial.objects(parsed, category == "complex"),
        "counts": lambda: numeracy.wanted(parsed),
    }
    meta = {name: asks[name]() for name in _ASKED[kind]}
    return Item(f"{category}-{k:03d}", text, category, {"chunker": parsed.chunker, **meta})


def complex_kind(text: str) -> str:
    """Returns "spatial", "action" or "both" for a complex prompt.

    It is spatial if it contains a phrase of `spatial.LOCALITIES`, and only spatial if that phrase
    directly follows a form of "be"; else its verb is an action: the cat sat next to the pillow.
    """
    if spatial.locality(text) is None:
        return "action"
    return "spatial" if _AT_REST.search(text) else "both"


def _value(item: Item, record: Record, mode: str) -> float:
    """Returns a picture's score: the mean of what is asked."""
    return fmean(
        measure(item, record, mode) for ask, measure in _MEASURES.items() if ask in item.meta
    )


_MEASURES: dict[str, Callable[[Item, Record, str], float]] = {
    "questions": lambda item, record, mode: attributes.score([p for _, p in record["vqa"]]),
    "text": lambda item, record, mode: record["clip"],
    "pair": lambda item, record, mode: spatial.score(
        spatial.locality(item.text), item.meta["pair"], record["found"], record["size"], mode
    ),
    "counts": lambda item, record, mode: numeracy.score(item.meta["counts"], record["found"]),
}
