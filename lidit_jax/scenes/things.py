"""What a scene consists of, and how to draw a random one."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np

from lidit_jax import shapes_world

SHAPES = shapes_world.SHAPES
COLOURS = {name: rgb for name, rgb in shapes_world.COLOURS.items() if name != "black"}
COLOURS["grey"] = (120, 120, 120)  # of a thing whose colour is not mentioned
TEXTURES = ("striped", "dotted", "hollow")  # plain if not mentioned
SIZES = ("small", "big")  # big if not mentioned
RELATIONS = {**shapes_world.RELATIONS, "next to": (1, 0)}  # the sides of "next to" may be swapped
MOST = 4  # things in a scene

GROUPS = ("one", "two", "three", "four", "counting", "relation")
SAID = {"colour": 0.85, "texture": 0.35, "size": 0.3}  # how often an attribute is mentioned


@dataclasses.dataclass(frozen=True, order=True)
class Thing:
    """A shape and its attributes as mentioned in the prompt; "" = not mentioned."""

    shape: str
    colour: str = ""
    texture: str = ""
    size: str = ""

    @property
    def said(self) -> dict[str, str]:
        """Returns the mentioned attributes, size first, as in "a small striped red circle"."""
        every = {"size": self.size, "texture": self.texture, "colour": self.colour}
        return {name: value for name, value in every.items() if value}

    @property
    def looks(self) -> "Thing":
        """Returns the thing with defaults for what is not mentioned; a plain texture stays ""."""
        return dataclasses.replace(self, colour=self.colour or "grey", size=self.size or "big")


@dataclasses.dataclass(frozen=True)
class Segment:
    """A part of a prompt that names a thing, and how many there are of it."""

    thing: Thing
    count: int = 1


@dataclasses.dataclass(frozen=True)
class Scene:
    """Segments of different shapes.

    With a relation there are two: the first is `relation` the second.
    """

    segments: tuple[Segment, ...]
    relation: str = ""

    @property
    def things(self) -> tuple[Thing, ...]:
        """Returns all things, in the order in which they are named."""
        return tuple(s.thing for s in self.segments for _ in range(s.count))

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Scene":
        """Returns the scene of a `dataclasses.asdict` result; the inverse of that function."""
        segments = (Segment(Thing(**s["thing"]), s["count"]) for s in told["segments"])
        return cls(tuple(segments), told["relation"])

    def rotated(self, by: int) -> "Scene":
        """Returns the scene with its segments rotated: the first `by` of them move to the end."""
        return Scene(self.segments[by:] + self.segments[:by], self.relation)


def draw(group: str, rng: np.random.Generator) -> Scene:
    """Returns a random scene of the group.

    one, two, three, four: that many single things; counting: two to four equal things, or two or
    three equal things and another; relation: two things and where the first is.
    """
    if group == "counting":
        counts = ((2,), (3,), (4,), (2, 1), (3, 1))[rng.integers(5)]
    else:
        counts = (1,) * {"one": 1, "relation": 2}.get(group, GROUPS.index(group) + 1)
    shapes = rng.permutation(list(SHAPES))[: len(counts)]
    segments = tuple(Segment(_thing(str(s), rng), n) for s, n in zip(shapes, counts))
    return Scene(segments, str(rng.choice(list(RELATIONS))) if group == "relation" else "")


def _thing(shape: str, rng: np.random.Generator) -> Thing:
    values = {"colour": list(COLOURS), "texture": TEXTURES, "size": SIZES}
    drawn = {name: (rng.random() < SAID[name], str(rng.choice(v))) for name, v in values.items()}
    said = {name: value for name, (is_said, value) in drawn.items() if is_said}
    return Thing(shape, **(said or {"colour": drawn["colour"][1]}))


def pairs(scene: Scene) -> set[frozenset]:
    """Returns the unordered pairs of (colour, shape) that occur together in the scene."""
    kinds = [(s.thing.looks.colour, s.thing.shape) for s in scene.segments]
    return {frozenset(pair) for pair in itertools.combinations(kinds, 2)}


def triples(scene: Scene) -> set[tuple[str, str, str]]:
    """Returns (colour, texture, shape) of every textured thing."""
    looks = [s.thing.looks for s in scene.segments]
    return {(t.colour, t.texture, t.shape) for t in looks if t.texture}
