"""Prompts of four things with independent colours, and where in the text each thing is."""

import dataclasses

import numpy as np

from lidit_jax.scenes import phrasing, things
from lidit_jax.scenes.things import Scene, Segment, Thing

SEGMENTS = things.MOST


@dataclasses.dataclass(frozen=True)
class MarkedPrompt:
    """A text, the first and last character (exclusive) of each thing, and its colour's index."""

    text: str
    spans: tuple[tuple[int, int], ...]
    colours: tuple[int, ...]


def draw(count: int, seed: int = 0) -> list[MarkedPrompt]:
    """Returns prompts such as "a red circle, a grey star, a blue heart and a red cross".

    Every colour is drawn independently, so none carries information about another: what a probe
    finds about one thing in another's tokens got there through the model.
    """
    rng = np.random.default_rng(seed)
    return [_draw(rng) for _ in range(count)]


def _draw(rng: np.random.Generator) -> MarkedPrompt:
    names = list(things.COLOURS)
    colours = rng.integers(len(names), size=SEGMENTS)
    shapes = rng.permutation(list(things.SHAPES))[:SEGMENTS]
    drawn = [Thing(str(shape), names[c]) for shape, c in zip(shapes, colours)]
    text = phrasing.adjectives(Scene(tuple(map(Segment, drawn))))
    spans = [(text.index(words := f"{t.colour} {t.shape}"), len(words)) for t in drawn]
    return MarkedPrompt(text, tuple((at, at + long) for at, long in spans), tuple(colours.tolist()))
