"""Rendered pictures of `lidit_jax.scenes`, as many as asked for."""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lidit_jax.data.sources.example import Caption, Drawing, Example, on_white
from lidit_jax.errors import check_range, unknown_name
from lidit_jax.scenes import held_out, phrasing, rendering, things
from lidit_jax.share import bounds

VERSION = 1  # raise it when a change of the world changes the pictures of a given seed
# The fraction of training pictures in each group.
MIXTURE = {"one": 0.1, "two": 0.15, "three": 0.15, "four": 0.3, "counting": 0.15, "relation": 0.15}


class Scenes:
    """`count` pictures of random scenes; example k depends on (seed, k) and languages alone.

    languages: "en", "zh"; a picture has one caption in each, in a phrasing drawn at random.
    Raises InputError for a negative count or seed, an unknown language, or none.
    """

    def __init__(self, count: int = 20_000, seed: int = 0, languages: Sequence[str] = ("en",)):
        check_range("source scenes: count", count, 0)
        check_range("source scenes: seed", seed, 0)
        check_range("source scenes: the number of languages", len(languages), 1)
        for language in languages:
            if language not in phrasing.PHRASINGS:
                raise unknown_name("language of source scenes", language, phrasing.PHRASINGS)
        self.options = {"count": count, "seed": seed, "languages": list(languages)}

    def __len__(self) -> int:
        return self.options["count"]

    def piece(self, i: int, n: int) -> Iterator[Example]:
        return map(self._example, bounds(len(self), i, n))

    def prompts(self, count: int) -> list[str]:
        """Prompts that training never sees, always the same; whole blocks of them are balanced."""
        blocks = min(-(-count // held_out.BLOCK_SIZE), held_out.MOST // held_out.BLOCK_SIZE)
        return [p.text for p in held_out.prompts(blocks * held_out.BLOCK_SIZE)[:count]]

    def describe(self) -> dict[str, Any]:
        return {
            "name": "scenes",
            "version": VERSION,
            "licence": "Apache-2.0",
            "options": self.options,
        }

    def _example(self, k: int) -> Example:
        seed = (self.options["seed"], k)
        rng = np.random.default_rng((*seed, 0))
        group = str(rng.choice(list(MIXTURE), p=list(MIXTURE.values())))
        scene = held_out.draw(group, "", rng)
        captions = tuple(
            self._caption(scene, language, rng) for language in self.options["languages"]
        )
        square = functools.partial(_draw, scene, (*seed, 1))
        key = f"{k:06d}"
        picture = Drawing(functools.partial(on_white, square), f"scenes-{seed[0]}-{key}")
        return Example(key=key, picture=picture, captions=captions)

    def _caption(self, scene: things.Scene, language: str, rng: np.random.Generator) -> Caption:
        phrasings = phrasing.PHRASINGS[language]
        name = str(rng.choice(list(phrasings)))
        origin = "synthetic" if name == "synthetic" else "original"
        return Caption(phrasings[name](scene), language, origin)


def _draw(scene: things.Scene, seed: tuple[int, ...], side: int) -> np.ndarray:
    return rendering.render(scene, side, np.random.default_rng(seed))
