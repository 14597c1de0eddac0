"""The scenes world's benchmark: held-out prompts, judged exactly, without a model."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lidit_jax.evaluation import judging_scenes
from lidit_jax.evaluation.benchmarks.benchmark import Item, Record, Tallies
from lidit_jax.evaluation.intervals import Tally
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.scenes import held_out, things
from lidit_jax.scenes.things import Scene

PROMPTS = 384
T2I = ("colour", "shape", "texture")
GENEVAL = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
AVERAGES = {
    "t2i_avg": tuple(f"t2i_{n}" for n in T2I),
    "geneval": tuple(f"geneval_{n}" for n in GENEVAL),
}


class Scenes:
    """Metrics, all of them shares, in percent:

    shape, colour, texture, size   segments where it is right, of those that mention it
    binding      segments that are right in every respect, in prompts with several
    count        pictures with the right number of things
    position     prompts with a relation where it holds between the right shapes
    all_correct  pictures where everything is right
    segment_1 to segment_4   like binding, for prompts of four things, by position in the prompt
    pairs, triples, phrasings   like all_correct, by what training never saw of the prompt
    t2i_*        pictures of several things where every segment that mentions it is right, since
                 T2I-CompBench multiplies its questions' scores; `t2i_avg` is their mean
    geneval_*    pictures that are right by GenEval's six tags; `geneval` is their mean: an object
                 of the right shape; two; the exact number; one of the right shape and colour; two
                 in relation; two of the right shapes and colours
    """

    official = False
    version = 3
    per_prompt = 1
    judges = ()
    modes = False
    any_words = False
    paper: dict = {}

    def items(self, folder: Path | None = None, count: int = PROMPTS) -> list[Item]:
        """Returns the first `count` held-out prompts; `folder` is not read.

        Raises InputError unless count is a multiple of `held_out.BLOCK_SIZE`.
        """
        return [_item(k, prompt) for k, prompt in enumerate(held_out.prompts(count))]

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns the verdict of `judging_scenes` as JSON values."""
        return judging_scenes.judge(image, Scene.from_json(item.meta["scene"])).to_json()

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics of the class; there is only one mode."""
        tallies = {name: _tally(items, records, values) for name, values in _METRICS.items()}
        told = {n: t for n, t in tallies.items() if t.count_P.any()}
        return Tallies(told, AVERAGES, scale=100, units=[item.meta["base"] for item in items])


def _item(k: int, prompt: held_out.Prompt) -> Item:
    return Item(str(k), prompt.text, prompt.group, dataclasses.asdict(prompt))


Values = Callable[[Item, Record], list[bool]]  # a picture's values for a metric


def _tally(items, records, values: Values) -> Tally:
    found = [
        [v for r in of for v in values(item, r)] for item, of in zip(items, records, strict=True)
    ]
    return Tally(np.array([sum(v) for v in found], float), np.array([len(v) for v in found], float))


def _said(attribute: str) -> Values:
    return lambda p, r: [s[attribute] for s in r["segments"] if attribute in s]


def _every(attribute: str, *groups: str) -> Values:
    """Whether all segments that mention it are right, for prompts of these groups that do."""

    def values(p, r):
        said = [s[attribute] for s in r["segments"] if attribute in s]
        return [all(said)] if said and p.group in groups else []

    return values


def _coloured(group: str) -> Values:
    """Whether all shapes are there in the mentioned colours: GenEval's clauses require both."""

    def values(p, r):
        right = [s["shape"] and s.get("colour", True) for s in r["segments"]]
        said = any("colour" in s for s in r["segments"])
        return [all(right)] if said and p.group == group else []

    return values


def _of(name: str, **of: Any) -> Values:
    """The record's value of a key, for prompts with these meta values."""
    return lambda p, r: [r[name]] if all(p.meta[k] == v for k, v in of.items()) else []


def _segment(k: int) -> Values:
    return lambda p, r: [r["segments"][k]["exact"]] if p.group == "four" else []


def _place(prompt: Item, record: Record) -> list[float]:
    return [record["place"]] if prompt.group == "relation" else []


_SEVERAL = ("two", "three", "four")
_METRICS: dict[str, Values] = {
    **{a: _said(a) for a in judging_scenes.ATTRIBUTES},
    "binding": lambda p, r: [s["exact"] for s in r["segments"]] if p.group in _SEVERAL else [],
    "count": lambda p, r: [r["count"]],
    "position": _place,
    "all_correct": lambda p, r: [r["all_correct"]],
    **{f"segment_{k + 1}": _segment(k) for k in range(things.MOST)},
    **{kind: _of("all_correct", kind=kind) for kind in held_out.KINDS},
    **{f"t2i_{a}": _every(a, *_SEVERAL) for a in T2I},
    "geneval_single_object": _every("shape", "one"),
    "geneval_two_object": _every("shape", "two"),
    "geneval_counting": lambda p, r: _every("shape", "counting")(p, r) and [_exactly(r)],
    "geneval_colors": _coloured("one"),
    "geneval_position": _place,
    "geneval_color_attr": _coloured("two"),
}


METRICS = (*_METRICS, *AVERAGES)


def _exactly(record: Record) -> bool:
    return record["count"] and all(s["shape"] for s in record["segments"])
