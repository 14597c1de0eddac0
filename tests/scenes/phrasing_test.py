"""A scene in words: as people write, whole, and told apart."""

import numpy as np
import pytest

from lidit_jax.scenes import phrasing, things
from lidit_jax.scenes.things import Scene, Segment, Thing

CIRCLE = Thing("circle", "red", "striped", "small")
STAR = Thing("star", "orange")
CROSS = Thing("cross", texture="hollow")
EVERY = {**phrasing.PHRASINGS["en"], **phrasing.PHRASINGS["zh"], **phrasing.HELD_OUT}

ONE = Scene((Segment(STAR),))
LISTED = Scene((Segment(CIRCLE), Segment(STAR), Segment(CROSS)))
COUNTED = Scene((Segment(CROSS, 3), Segment(STAR)))
RELATED = Scene((Segment(CIRCLE), Segment(STAR)), "left of")
WANTED = {
    ("adjectives", ONE): "an orange star",
    ("adjectives", LISTED): "a small striped red circle, an orange star and a hollow cross",
    ("adjectives", COUNTED): "three hollow crosses and an orange star",
    ("adjectives", RELATED): "a small striped red circle left of an orange star",
    ("after", LISTED): "a circle, small, striped and red; a star, orange; a cross, hollow",
    ("after", RELATED): "a circle, small, striped and red; a star, orange; the circle is left of the star",
    ("back", ONE): "A star. The star is orange.",
    ("back", COUNTED): "Three crosses and a star. The crosses are hollow; the star is orange.",
    ("back", RELATED): "A circle left of a star. The circle is small, striped and red; the star is orange.",
    ("synthetic", ONE): "The picture shows one thing on a white background. First comes a star, which is orange.",
    ("synthetic", COUNTED): "The picture shows four things on a white background. First come three crosses, "
    "which are hollow. Second comes a star, which is orange.",
    ("synthetic", RELATED): "The picture shows two things on a white background. First comes a circle, which is "
    "small, striped and red. Second comes a star, which is orange. The circle is left of the star.",
    ("then", ONE): "nothing but an orange star",
    ("then", LISTED): "first a small striped red circle, and then an orange star, and then a hollow cross",
    ("then", RELATED): "a small striped red circle, and it is left of an orange star",
    ("chinese", LISTED): "一个小的条纹红色圆形、一个橙色星形和一个空心十字",
    ("chinese", COUNTED): "三个空心十字和一个橙色星形",
    ("chinese", RELATED): "一个小的条纹红色圆形在一个橙色星形的左边",
    ("chinese_back", RELATED): "一个圆形在一个星形的左边。圆形是小的、条纹的、红色的；星形是橙色的。",
}  # fmt: skip


@pytest.mark.parametrize(("name", "scene"), WANTED, ids=lambda x: x if isinstance(x, str) else "")
def test_a_scene_in_words(name, scene):
    assert EVERY[name](scene) == WANTED[name, scene]


@pytest.mark.parametrize("name", EVERY)
def test_different_scenes_have_different_words(name):
    """But for the pictures of "next to", whose sides are not said."""
    rng, seen = np.random.default_rng(0), {}
    for group in things.GROUPS:
        for _ in range(300):
            scene = things.draw(group, rng)
            assert seen.setdefault(EVERY[name](scene), scene) == scene


@pytest.mark.parametrize("name", [n for n in EVERY if not n.startswith("chinese")])
def test_every_attribute_is_said_once_and_no_other(name):
    rng = np.random.default_rng(1)
    for group in things.GROUPS:
        for _ in range(50):
            scene = things.draw(group, rng)
            words = EVERY[name](scene).lower().replace(",", " ").replace(";", " ").replace(".", " ")
            for kind in (things.COLOURS, things.TEXTURES, things.SIZES):
                said = [w for w in words.split() if w in kind]
                wanted = [v for s in scene.segments for v in s.thing.said.values() if v in kind]
                assert said == wanted, (name, scene)
