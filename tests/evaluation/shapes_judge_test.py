"""The judge of the shapes world: right on true pictures, and finds every planted error."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from lidit_jax import shapes_world
from lidit_jax.errors import InputError
from lidit_jax.evaluation import SUITES
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.evaluation.shapes import Verdict, detect, judge
from lidit_jax.shapes_world import COLOURS, RELATIONS, SHAPES, Object, Scene
from tests.evaluation.made import to_uint8

SCENES = shapes_world.all_scenes()
TWOS = [SCENES[i] for i in np.random.default_rng(0).integers(48, len(SCENES), 80)]
SAMPLE = [*SCENES[:48], *TWOS]
SIZES = [32, 64]
ALL_TRUE = Verdict(count=True, colour=True, shape=True, place=True)


def render(scene, size):
    return shapes_world.render(scene, size, np.random.default_rng(SCENES.index(scene)))


def agreement(size, spoil):
    return np.mean([judge(spoil(render(s, size)), s).all_correct for s in SAMPLE])


@pytest.mark.parametrize("size", [24, *SIZES, 96])
def test_the_truth_is_found_true(size):
    assert agreement(size, lambda image: image) == 1.0


@pytest.mark.parametrize("size", SIZES)
def test_noise_and_blur_hardly_matter(size):
    def noise(image):
        return to_uint8(image + np.random.default_rng(0).normal(0, 10, image.shape))

    def blur(image):
        return to_uint8(ndimage.gaussian_filter(image.astype(float), (1, 1, 0)))

    for spoil in (noise, blur, lambda image: noise(blur(image))):
        assert agreement(size, spoil) >= 0.98


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("attribute, values", [("colour", COLOURS), ("shape", SHAPES)])
def test_a_wrong_attribute_is_found_and_nothing_else(size, attribute, values):
    rng = np.random.default_rng(0)
    for scene in TWOS:
        spoiled = list(scene.objects)
        slot = rng.integers(2)
        others = sorted(set(values) - {getattr(spoiled[slot], attribute)})
        change = {attribute: str(rng.choice(others))}
        spoiled[slot] = dataclasses.replace(spoiled[slot], **change)
        picture = shapes_world.render(Scene(tuple(spoiled), scene.relation), size, rng)
        wanted = dataclasses.replace(ALL_TRUE, **{attribute: False})
        assert judge(picture, scene) == wanted, (scene, slot, change)


@pytest.mark.parametrize("size", SIZES)
def test_a_wrong_place_is_found_and_nothing_else(size):
    rng = np.random.default_rng(0)
    for scene in TWOS:
        for relation in sorted(set(RELATIONS) - {scene.relation}):
            picture = shapes_world.render(Scene(scene.objects, relation), size, rng)
            assert judge(picture, scene) == dataclasses.replace(ALL_TRUE, place=False), scene


@pytest.mark.parametrize("size", SIZES)
def test_a_missing_and_an_extra_object_are_found(size):
    rng = np.random.default_rng(0)
    for scene in TWOS:
        alone = Scene(scene.objects[:1])
        missing = judge(shapes_world.render(alone, size, rng), scene)
        assert missing == Verdict(False, False, False, False)
        extra = judge(shapes_world.render(scene, size, rng), alone)
        assert extra == dataclasses.replace(ALL_TRUE, count=False)
    three = np.hstack([render(TWOS[0], size), render(alone, size)])
    assert not judge(three, TWOS[0]).count


@pytest.mark.parametrize("width, height", [(16, 16), (23, 40), (24, 5000)])
def test_a_picture_too_small_to_tell_shapes_apart_is_refused(samples, width, height):
    white = np.full((height, width, 3), 255, np.uint8)
    read = samples([(shapes_world.caption(TWOS[0]), white)])
    wanted = f"000000.png: a picture of {width}x{height} pixels, .* be 24 or more"
    with pytest.raises(InputError, match=wanted):
        SUITES["shapes"](read, None, Judges())


def test_what_is_no_object_counts_as_none():
    white, black = np.full((32, 32, 3), 255, np.uint8), np.zeros((32, 32, 3), np.uint8)
    assert detect(white) == []
    assert [d.shape for d in detect(black)] == [None]
    scene = Scene((Object("red", "circle"),))
    specks = render(scene, 32).copy()
    specks[::7, 0] = 0
    assert judge(specks, scene).all_correct
    motley = render(scene, 32).copy()
    half = motley[:, :16]
    half[half.min(axis=-1) < 60] = COLOURS["blue"]
    assert [d.colour for d in detect(motley)] == [None]
    faint = to_uint8(255 - 0.3 * (255.0 - render(scene, 32)))
    assert detect(faint) == []


def test_the_suite_gives_the_fraction_of_prompts_that_came_true(samples):
    rng = np.random.default_rng(0)
    right, wrong = TWOS[:2]
    swapped = Scene(wrong.objects, "above" if wrong.relation == "below" else "below")
    read = samples(
        (shapes_world.caption(prompt), shapes_world.render(shown, 32, rng))
        for prompt, shown in [(right, right), (right, right), (wrong, wrong), (wrong, swapped)]
    )
    scores = SUITES["shapes"](read, None, Judges())
    assert scores == {"count": 1, "colour": 1, "shape": 1, "place": 0.75, "all_correct": 0.75}
    with pytest.raises(InputError, match="'a nice day' is not a caption"):
        SUITES["shapes"](samples([("a nice day", render(right, 32))]), None, Judges())
