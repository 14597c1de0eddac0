"""A procedural world whose pictures can be judged exactly: one or two coloured shapes on white.

"a red circle", "a blue star left of a green heart". Some pairs of objects are held out of
training: a model that draws them has composed what it learned, not memorised a picture.
"""

import dataclasses
import functools
import itertools

import numpy as np
from PIL import Image, ImageDraw

from lidit_jax.errors import InputError

# Every colour has a channel near 0, so 255 - min(r, g, b) tells how much of a pixel is covered.
COLOURS = {
    "red": (220, 30, 40),
    "orange": (250, 140, 20),
    "yellow": (250, 220, 30),
    "green": (40, 160, 50),
    "cyan": (30, 185, 215),
    "blue": (30, 60, 215),
    "purple": (165, 40, 175),
    "black": (25, 25, 25),
}


def _around(angles, radius):
    return np.stack([radius * np.sin(angles), -radius * np.cos(angles)], axis=-1)


def _heart():
    t = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -13 * np.cos(t) + 5 * np.cos(2 * t) + 2 * np.cos(3 * t) + np.cos(4 * t)
    return np.stack([x, y - 2.5], axis=-1) / 16


# Outlines as polygons [points, 2] of (x right, y down), each filling most of [-1, 1] x [-1, 1].
SHAPES = {
    "circle": _around(np.linspace(0, 2 * np.pi, 64, endpoint=False), 1.0),
    "square": 0.9 * np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]),
    "triangle": np.array([(0, -0.9), (1, 0.85), (-1, 0.85)]),
    "star": _around(np.arange(10) * np.pi / 5, np.tile([1.05, 0.5], 5)) + (0, 0.1),
    "heart": _heart(),
    "cross": np.array([(-1, -3), (1, -3), (1, -1), (3, -1), (3, 1), (1, 1)]
                      + [(1, 3), (-1, 3), (-1, 1), (-3, 1), (-3, -1), (-1, -1)]) / 3,
}  # fmt: skip

# From a relation to the step (x right, y down) that leads from the second object to the first.
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}

HELD_OUT_PAIRS = 64  # of the 1,128 pairs of objects; each is 8 scenes: 2 orders, 4 relations
_SUPERSAMPLE = 4


@dataclasses.dataclass(frozen=True, order=True)
class Object:
    colour: str
    shape: str


@dataclasses.dataclass(frozen=True)
class Scene:
    """One object, or two different ones, where the first is `relation` the second."""

    objects: tuple[Object, ...]
    relation: str | None = None


def caption(scene: Scene) -> str:
    """Returns the scene in words: "an orange heart", "a red circle left of a blue square"."""
    nouns = [
        f"{'an' if o.colour[0] in 'aeiou' else 'a'} {o.colour} {o.shape}" for o in scene.objects
    ]
    return f" {scene.relation} ".join(nouns)


@functools.cache
def all_scenes() -> tuple[Scene, ...]:
    """Returns all scenes, always in the same order: 48 with one object, then 9,024 with two."""
    objects = [Object(colour, shape) for colour in COLOURS for shape in SHAPES]
    ones = [Scene((o,)) for o in objects]
    twos = [
        Scene(pair, relation)
        for pair in itertools.permutations(objects, 2)
        for relation in RELATIONS
    ]
    return tuple(ones + twos)


@functools.cache
def _by_caption() -> dict[str, Scene]:
    return {caption(scene): scene for scene in all_scenes()}


def parse(text: str) -> Scene:
    """Returns the scene that a caption describes; the inverse of `caption`.

    Raises InputError if the text is not exactly the caption of a scene.
    """
    if text not in _by_caption():
        raise InputError(
            f"{text!r} is not a caption of the shapes world; want 'a COLOUR SHAPE' or 'a COLOUR "
            f"SHAPE RELATION a COLOUR SHAPE', two different objects; colours {', '.join(COLOURS)}; "
            f"shapes {', '.join(SHAPES)}; relations {', '.join(RELATIONS)}"
        )
    return _by_caption()[text]


def split(scenes: tuple[Scene, ...], seed: int = 0) -> tuple[list[Scene], list[Scene]]:
    """Returns (train, held out), both in the order of `scenes`.

    HELD_OUT_PAIRS unordered pairs of objects are drawn, and all scenes with them are held out:
    "A left of B" and "B right of A" are one picture, and never end up on different sides.
    """
    pairs = sorted({tuple(sorted(s.objects)) for s in scenes if len(s.objects) == 2})
    drawn = np.random.default_rng(seed).choice(len(pairs), HELD_OUT_PAIRS, replace=False)
    held = {pairs[i] for i in drawn}
    train = [s for s in scenes if tuple(sorted(s.objects)) not in held]
    held_out = [s for s in scenes if tuple(sorted(s.objects)) in held]
    return train, held_out


def held_out_prompts(count: int, seed: int = 0) -> list[str]:
    """Returns `count` different captions, drawn with `seed` from those that `split` holds out.

    Raises InputError if there are fewer.
    """
    captions = [caption(s) for s in split(all_scenes())[1]]
    if not 0 <= count <= len(captions):
        raise InputError(f"{count} prompts requested, but {len(captions)} captions are held out")
    return np.random.default_rng(seed).permutation(captions)[:count].tolist()


def render(scene: Scene, size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a picture of the scene, uint8 [size, size, 3], on white, with smooth edges.

    The rng moves and scales each object a little; the same rng state gives the same picture at
    every size. Two objects stay in their own halves, at least 1/20 of the picture apart.
    """
    fine = size * _SUPERSAMPLE
    canvas = Image.new("RGB", (fine, fine), "white")
    draw = ImageDraw.Draw(canvas)
    toward_first = np.array(RELATIONS.get(scene.relation, (0, 0)))
    for i, thing in enumerate(scene.objects):
        radius = rng.uniform(0.2, 0.22)  # 13 to 14 pixels wide at 32
        along = toward_first * (1 - 2 * i)  # direction from the middle to this object
        jitter = np.where(along == 0, 0.04, 0.01) * rng.uniform(-1, 1, 2)
        centre = 0.5 + 0.255 * along + jitter
        corners = fine * (centre + radius * SHAPES[thing.shape])
        draw.polygon([tuple(c) for c in corners - 0.5], fill=COLOURS[thing.colour])
    return np.asarray(canvas.resize((size, size), Image.Resampling.BOX))
