"""GenEval: are a prompt's objects in the picture, with the right number, colour and place?"""

import functools
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.evaluation.benchmarks import geneval_rules, prompt_files
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record, Tallies
from lidit_jax.evaluation.intervals import Tally
from lidit_jax.evaluation.judges.records import Detection, Embedder, Judges

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
COLOURS = "red orange yellow green blue purple pink brown black white".split()
GROUND = 0x99  # the grey background that an object is shown on
_SENTENCES = ("a photo of a {} {}", "a photo of a {}-colored {}", "a photo of a {} object")
_TABLE = {  # the paper's Table 1, as printed: DALL-E 3's two objects do not fit its overall
    "SD v1.5": (0.97, 0.38, 0.35, 0.76, 0.04, 0.06, 0.43),
    "SD v2": (0.98, 0.51, 0.44, 0.85, 0.07, 0.17, 0.50),
    "SDXL": (0.98, 0.74, 0.39, 0.85, 0.15, 0.23, 0.55),
    "SD3-1B": (0.97, 0.72, 0.52, 0.78, 0.16, 0.34, 0.58),
    "PixArt-α": (0.98, 0.50, 0.44, 0.80, 0.08, 0.07, 0.48),
    "LI-DiT-1B": (0.98, 0.69, 0.48, 0.86, 0.22, 0.37, 0.60),
    "DALL-E 3": (0.96, 0.47, 0.47, 0.83, 0.43, 0.45, 0.67),
    "SD3-8B": (0.99, 0.94, 0.72, 0.89, 0.33, 0.60, 0.74),
    "LI-DiT-10B": (0.99, 0.91, 0.65, 0.91, 0.47, 0.64, 0.76),
}


class GenEval:
    """GenEval, arXiv 2310.11513. Metrics are shares in [0, 1]:

    single_object to color_attr   pictures that are right, over the prompts with this tag
    overall                       the mean of these six, regardless of their numbers of prompts
    prompts_any                   prompts with at least one right picture

    Both modes are the same: the published scoring has no mistake to repair. Its rules do not
    suppress overlapping objects, and have a threshold of their own for counting.
    """

    official = True
    version = 2  # since 2, its detector sees as many pixels as the published one
    per_prompt = 4
    judges = ("detector", "clip")
    modes = True
    any_words = False
    paper = {row: dict(zip((*TAGS, "overall"), of, strict=True)) for row, of in _TABLE.items()}

    def items(self, folder: Path) -> list[Item]:
        """Returns the 553 prompts of evaluation_metadata.jsonl, with their clauses.

        Raises InputError if the file is missing or is not the published one.
        """
        lines = prompt_files.read_lines(folder, prompt_files.GENEVAL)
        return [_item(k, json.loads(line)) for k, line in enumerate(lines)]

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns {"objects": {class: [{"score", "box", "colour"}, ...]}}, best first.

        image: uint8 [height, width, 3]. Only the classes in the prompt's clauses are detected, and
        only objects that a clause on colour takes have a colour. Each class has the objects that
        `geneval_rules.kept` keeps.
        """
        clauses = [*item.meta["include"], *item.meta["exclude"]]
        classes = list(dict.fromkeys(clause["class"] for clause in clauses))
        found = judges.detector.detect(image, classes)
        objects = {}
        for name, kept in geneval_rules.kept(found, item.group == "counting").items():
            objects[name] = [{"score": d.score, "box": list(d.box)} for d in kept]
            coloured = [c["count"] for c in clauses if "color" in c and c["class"] == name]
            taken = kept[: max(coloured, default=0)]
            for known, colour in zip(objects[name], classified(image, taken, judges.clip)):
                known["colour"] = colour
        return {"objects": objects}

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics of the class; they are the same in every mode."""
        right_P = np.array([_right(i, of) for i, of in zip(items, records, strict=True)], float)
        drawn_P = np.array([len(of) for of in records], float)
        tag_P = np.array([item.group for item in items])
        metrics = {tag: Tally(right_P * (tag_P == tag), drawn_P * (tag_P == tag)) for tag in TAGS}
        metrics["prompts_any"] = Tally((right_P > 0).astype(float), np.ones(len(items)))
        return Tallies(metrics, {"overall": TAGS})


def _item(k: int, line: dict) -> Item:
    clauses = {"include": line["include"], "exclude": line.get("exclude", [])}
    return Item(f"{k:05d}", line["prompt"], line["tag"], clauses)


def _right(item: Item, records: Sequence[Record]) -> int:
    """Returns the number of right pictures of a prompt."""
    return sum(geneval_rules.is_right(record["objects"], **item.meta) for record in records)


def classified(image: np.ndarray, objects: Sequence[Detection], clip: Embedder) -> list[str]:
    """Returns the colour of each object, all of one class: the one with the nearest sentences.

    image: uint8 [height, width, 3]. The published rule: CLIP's zero-shot classification of the
    output of `shown`, with the mean of a colour's three sentences.
    """
    if not objects:
        return []
    crops_NxE = clip.images([shown(image, o) for o in objects])
    nearest_N = (crops_NxE @ _directions(clip, objects[0].label).T).argmax(axis=1)
    return [COLOURS[k] for k in nearest_N]


def shown(image: np.ndarray, detection: Detection) -> np.ndarray:
    """Returns a detection cropped to its box, on grey outside its mask; without a mask, as it is.

    Fractional boxes are widened to whole pixels, so that none is empty.
    """
    if detection.mask is not None:
        image = np.where(detection.mask[..., None], image, np.uint8(GROUND))
    left, top = (math.floor(v) for v in detection.box[:2])
    right, bottom = (math.ceil(v) for v in detection.box[2:])
    return np.ascontiguousarray(image[top:bottom, left:right])


@functools.lru_cache(maxsize=128)
def _directions(clip: Embedder, name: str) -> np.ndarray:
    """Returns a unit vector for each colour of a class of objects, [colours, E]."""
    sentences = [s.format(colour, name) for colour in COLOURS for s in _SENTENCES]
    mean_CxE = clip.texts(sentences).reshape(len(COLOURS), len(_SENTENCES), -1).mean(axis=1)
    return mean_CxE / np.linalg.norm(mean_CxE, axis=1, keepdims=True)
