"""The source of rendered shapes: pictures show what captions say, whatever the count."""

import numpy as np

from lidit_jax import shapes_world
from lidit_jax.evaluation import shapes as judge
from tests.tiny_sources import every


def test_shapes_show_what_their_captions_say():
    for split in ("train", "held_out"):
        scenes = set(shapes_world.split(shapes_world.all_scenes())[split == "held_out"])
        for example in every("shapes", count=100, split=split):
            scene = shapes_world.parse(example.captions[0].text)
            assert scene in scenes
            assert judge.judge(example.picture.pixels(32, 32), scene).all_correct, example


def test_shapes_example_depends_on_seed_and_index_alone():
    few, many, other = (
        every("shapes", count=n, seed=seed) for n, seed in ((20, 0), (40, 0), (40, 1))
    )
    assert [e.captions for e in few] == [e.captions for e in many[:20]]
    assert (few[7].picture.pixels(32, 32) == many[7].picture.pixels(32, 32)).all()
    assert [e.captions for e in many] != [e.captions for e in other]


def test_one_in_eight_shapes_pictures_has_a_single_object():
    captions = [e.captions[0].text for e in every("shapes", count=2000)]
    single = np.mean([len(shapes_world.parse(c).objects) == 1 for c in captions])
    assert abs(single - 1 / 8) < 0.03
    assert len(set(captions)) > 1500
