"""The shapes world: captions invert, held-out pairs are unseen, objects keep to their halves."""

import numpy as np
import pytest
from PIL import Image

from lidit_jax import shapes_world
from lidit_jax.errors import InputError
from lidit_jax.shapes_world import COLOURS, RELATIONS, SHAPES, Object, Scene

SCENES = shapes_world.all_scenes()
TWOS = [s for s in SCENES if len(s.objects) == 2]


def test_parse_inverts_caption_for_every_scene():
    captions = [shapes_world.caption(s) for s in SCENES]
    assert len(set(captions)) == len(SCENES) == 48 + 48 * 47 * 4
    assert [shapes_world.parse(c) for c in captions] == list(SCENES)


def test_captions_are_english():
    scene = Scene((Object("red", "circle"), Object("orange", "square")), "left of")
    assert shapes_world.caption(scene) == "a red circle left of an orange square"


@pytest.mark.parametrize(
    "text",
    ["", "red circle", "a purple banana", "a red circle near a blue square"]
    + ["a red circle left of a red circle", "A red circle", "a orange circle"],
)
def test_other_text_is_refused(text):
    with pytest.raises(InputError, match="not a caption of the shapes world.*red.*circle.*left of"):
        shapes_world.parse(text)


@pytest.mark.parametrize("seed", range(5))
def test_split_hides_pairs_but_no_object_slot_or_relation(seed):
    train, held_out = shapes_world.split(SCENES, seed)
    assert len(train) + len(held_out) == len(SCENES)
    assert set(train) | set(held_out) == set(SCENES)
    assert len(held_out) == 8 * shapes_world.HELD_OUT_PAIRS

    def pairs(scenes):
        return {frozenset(s.objects) for s in scenes if len(s.objects) == 2}

    assert not pairs(train) & pairs(held_out)
    seen = {(o, slot, s.relation) for s in train if s.relation for slot, o in enumerate(s.objects)}
    assert len(seen) == len(COLOURS) * len(SHAPES) * 2 * len(RELATIONS)
    assert {s for s in train if len(s.objects) == 1} == set(SCENES) - set(TWOS)


def test_split_is_fixed_by_its_seed():
    assert shapes_world.split(SCENES, 1) == shapes_world.split(SCENES, 1)
    assert shapes_world.split(SCENES, 1) != shapes_world.split(SCENES, 2)


def test_held_out_prompts_are_distinct_fixed_and_held_out():
    prompts = shapes_world.held_out_prompts(64, seed=3)
    assert prompts == shapes_world.held_out_prompts(64, seed=3)
    assert prompts != shapes_world.held_out_prompts(64, seed=4)
    assert len(set(prompts)) == 64
    _, held_out = shapes_world.split(SCENES)
    assert {shapes_world.parse(p) for p in prompts} <= set(held_out)
    with pytest.raises(InputError, match="but 512 captions are held out"):
        shapes_world.held_out_prompts(513)


def test_two_objects_keep_to_their_halves():
    rng = np.random.default_rng(0)
    for i in rng.integers(len(TWOS), size=200):
        scene = TWOS[i]
        picture = shapes_world.render(scene, 80, rng)
        if scene.relation in ("above", "below"):
            picture = picture.swapaxes(0, 1)
        assert (picture[:, 38:42] == 255).all(), scene  # 1/20 of the picture
        first, second = scene.objects
        if scene.relation in ("right of", "below"):
            first, second = second, first
        for thing, half in ((first, picture[:, :40]), (second, picture[:, 40:])):
            assert (half == COLOURS[thing.colour]).all(axis=-1).any(), scene


def test_a_scene_looks_the_same_at_every_size():
    for i in np.random.default_rng(0).integers(len(SCENES), size=50):
        large, small = (
            shapes_world.render(SCENES[i], size, np.random.default_rng(i)) for size in (128, 32)
        )
        shrunk = np.asarray(Image.fromarray(large).resize((32, 32), Image.Resampling.BOX))
        assert np.abs(shrunk.astype(float) - small).mean() < 4, SCENES[i]


def test_jitter_comes_from_the_rng_alone():
    one, same, other = (
        shapes_world.render(SCENES[0], 32, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert (one == same).all() and (one != other).any()
    assert one.shape == (32, 32, 3) and one.dtype == np.uint8


def test_shapes_are_within_the_unit_square():
    for name, outline in SHAPES.items():
        assert np.abs(outline).max() <= 1.0, name
