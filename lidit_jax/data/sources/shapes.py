"""Rendered pictures of `lidit_jax.shapes_world`, as many as asked for."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from lidit_jax import shapes_world
from lidit_jax.data.sources.example import Caption, Drawing, Example, on_white
from lidit_jax.errors import check_range, unknown_name
from lidit_jax.share import bounds

VERSION = 2  # raise it when a change of the world changes the pictures of a given seed
SINGLE = 1 / 8  # of the training pictures show one object, for which there are few scenes


class Shapes:
    """`count` pictures of random scenes; example k depends on (seed, split, k) alone.

    split: "train", or "held_out" for the scenes that training never sees.
    Raises InputError for a negative count or seed, or an unknown split.
    """

    def __init__(self, count: int = 20_000, seed: int = 0, split: str = "train"):
        train, held_out = shapes_world.split(shapes_world.all_scenes())
        scenes = {"train": train, "held_out": held_out}
        if split not in scenes:
            raise unknown_name("split of source shapes", split, scenes)
        check_range("source shapes: count", count, 0)
        check_range("source shapes: seed", seed, 0)
        self.options = {"count": count, "seed": seed, "split": split}
        self._singles = [s for s in scenes[split] if len(s.objects) == 1]
        self._pairs = [s for s in scenes[split] if len(s.objects) == 2]

    def __len__(self) -> int:
        return self.options["count"]

    def piece(self, i: int, n: int) -> Iterator[Example]:
        return map(self._example, bounds(len(self), i, n))

    def prompts(self, count: int) -> list[str]:
        """Captions of pairs of objects that training never sees, drawn at random once for all."""
        return shapes_world.held_out_prompts(min(count, 512))

    def describe(self) -> dict[str, Any]:
        return {
            "name": "shapes",
            "version": VERSION,
            "licence": "Apache-2.0",
            "options": self.options,
        }

    def _example(self, k: int) -> Example:
        seed = (self.options["seed"], k)
        rng = np.random.default_rng((*seed, 0))
        scenes = self._singles if self._singles and rng.random() < SINGLE else self._pairs
        scene = scenes[rng.integers(len(scenes))]
        square = functools.partial(_draw, scene, (*seed, 1))
        key = f"{self.options['split']}-{k:06d}"
        return Example(
            key=key,
            picture=Drawing(functools.partial(on_white, square), f"shapes-{seed[0]}-{key}"),
            captions=(Caption(shapes_world.caption(scene)),),
        )


def _draw(scene: shapes_world.Scene, seed: tuple[int, ...], side: int) -> np.ndarray:
    return shapes_world.render(scene, side, np.random.default_rng(seed))
