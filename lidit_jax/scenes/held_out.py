"""What training never sees: pairs of things, triples of attributes, a phrasing; and prompts of
them.
"""

import dataclasses
import functools
import itertools

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.scenes import phrasing, things
from lidit_jax.scenes.things import Scene

KINDS = ("pairs", "triples", "phrasings")
SHARE = 0.1  # of all pairs, and of all triples
# Prompts come in blocks of the same composition. Four things come as four prompts with rotated
# segments, so that each thing is once at each position, and its identity cannot explain an effect
# of position.
BLOCK = {"one": 4, "two": 4, "three": 4, "counting": 4, "relation": 4, "four": 12}
BLOCK_SIZE = sum(BLOCK.values())
MOST = 64 * BLOCK_SIZE


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A prompt to judge models by. kind: what is new in it; base: the same for all rotations."""

    text: str
    scene: Scene
    group: str
    kind: str
    phrasing: str
    base: int


@functools.cache
def pairs() -> frozenset:
    """Returns the unordered pairs of (colour, shape) that never occur together in training."""
    kinds = list(itertools.product(things.COLOURS, things.SHAPES))
    every = [p for p in itertools.combinations(kinds, 2) if p[0][1] != p[1][1]]
    return frozenset(frozenset(every[i]) for i in _chosen(len(every), 0))


@functools.cache
def triples() -> frozenset:
    """Returns the (colour, texture, shape) triples that no thing in training has."""
    every = list(itertools.product(things.COLOURS, things.TEXTURES, things.SHAPES))
    return frozenset(every[i] for i in _chosen(len(every), 1))


def _chosen(count: int, stream: int) -> np.ndarray:
    return np.random.default_rng((0, stream)).choice(count, round(SHARE * count), replace=False)


def novelty(scene: Scene) -> str:
    """Returns what in a scene training never sees: "pairs", "triples", "both" or ""."""
    has_pairs = bool(things.pairs(scene) & pairs())
    has_triples = bool(things.triples(scene) & triples())
    return "both" if has_pairs and has_triples else "pairs" * has_pairs + "triples" * has_triples


def draw(group: str, wanted: str, rng: np.random.Generator) -> Scene:
    """Returns a random scene of the group whose `novelty` is `wanted`: "pairs", "triples" or ""."""
    while True:
        scene = things.draw(group, rng)
        if novelty(scene) == wanted:
            return scene


def prompts(count: int) -> list[Prompt]:
    """Returns the first `count` prompts to judge models by: all different, the same in every call.

    Raises InputError unless count is a multiple of BLOCK_SIZE, up to MOST.
    """
    if not 0 < count <= MOST or count % BLOCK_SIZE:
        raise InputError(
            f"{count} prompts of scenes requested; want a multiple of {BLOCK_SIZE} up to {MOST}"
        )
    return list(_every()[:count])


@functools.cache
def _every() -> tuple[Prompt, ...]:
    found: dict[str, Prompt] = {}
    rng = np.random.default_rng(1)
    for base in itertools.count():
        if len(found) == MOST:
            return tuple(found.values())
        group = _group(len(found) % BLOCK_SIZE)
        rotations = _rotations(group, base, rng)
        if len({p.text for p in rotations} - found.keys()) == len(rotations):
            found |= {p.text: p for p in rotations}


def _group(place: int) -> str:
    """Returns the group of the prompt at this place in its block."""
    return [group for group, count in BLOCK.items() for _ in range(count)][place]


def _rotations(group: str, base: int, rng: np.random.Generator) -> list[Prompt]:
    """Returns a new prompt of the group, or four that are rotations of one."""
    kind = KINDS[rng.choice(3, p=(0.5, 0.25, 0.25))]
    if kind == "pairs" and group in ("one", "counting"):
        kind = "triples"
    known = phrasing.HELD_OUT if kind == "phrasings" else phrasing.PHRASINGS["en"]
    name = str(rng.choice(list(known)))
    scene = draw(group, "" if kind == "phrasings" else kind, rng)
    scenes = [scene.rotated(k) for k in range(things.MOST)] if group == "four" else [scene]
    return [Prompt(known[name](s), s, group, kind, name, base) for s in scenes]
