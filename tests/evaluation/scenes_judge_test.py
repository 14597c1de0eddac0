"""The judge of the scenes world: right on true pictures, finds every planted error and no other."""

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import ndimage

from lidit_jax.errors import InputError
from lidit_jax.evaluation import judging_scenes
from lidit_jax.evaluation.judging_scenes import ATTRIBUTES, judge
from lidit_jax.evaluation.seeing_scenes import see
from lidit_jax.scenes import held_out, things
from lidit_jax.scenes.rendering import render
from lidit_jax.scenes.things import (
    COLOURS,
    RELATIONS,
    SHAPES,
    SIZES,
    TEXTURES,
    Scene,
    Segment,
    Thing,
)
from tests.evaluation.made import to_uint8

SIZES_PX = [48, pytest.param(64, marks=pytest.mark.slow)]
VALUES = {"shape": SHAPES, "colour": COLOURS, "texture": ("", *TEXTURES), "size": SIZES}
PROMPTS = held_out.prompts(128)
EVERY_THING = [
    Thing(*looks) for looks in itertools.product(SHAPES, COLOURS, ("", *TEXTURES), SIZES)
]


def drawn(scene, size, seed=0):
    return render(scene, size, np.random.default_rng(seed))


def noisy(image, sigma=10):
    rng = np.random.default_rng(image.sum())  # another noise for each picture
    return to_uint8(image + rng.normal(0, sigma, image.shape))


def blurred(image, sigma=0.7):
    return to_uint8(ndimage.gaussian_filter(image.astype(float), (sigma, sigma, 0)))


@pytest.mark.parametrize(
    ("size", "count"),
    [
        (48, 64),
        *(pytest.param(*of, marks=pytest.mark.slow) for of in ((48, 1536), (64, 128), (96, 128))),
    ],
)
def test_the_truth_is_found_true(size, count):
    """Prompts that models are judged by; every thing that can be said, among others."""
    for seed, prompt in enumerate(held_out.prompts(count)):
        assert judge(drawn(prompt.scene, size, seed), prompt.scene).all_correct, prompt
    others = [Thing("circle", "red"), Thing("star", "blue"), Thing("heart", "grey")]
    for seed, thing in enumerate(EVERY_THING):
        scene = Scene(tuple(Segment(t) for t in (thing, *others)))
        assert judge(drawn(scene, size, seed), scene).all_correct, thing


@pytest.mark.parametrize("size", SIZES_PX)
@pytest.mark.parametrize(
    ("spoil", "least"),
    [(noisy, 0.97), (blurred, 0.95), (lambda image: noisy(blurred(image)), 0.94)],
    ids=["noise", "blur", "both"],
)
def test_blur_and_noise_like_a_models_hardly_matter(size, spoil, least, record_property):
    right = [
        s["exact"]
        for seed, p in enumerate(PROMPTS)
        for s in judge(spoil(drawn(p.scene, size, seed)), p.scene).segments
    ]
    record_property(
        "totals", f"agreement of the judge at {size} px: {np.mean(right):.3f} of segments"
    )
    assert np.mean(right) >= least


@pytest.mark.parametrize("size", SIZES_PX)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_a_wrong_attribute_is_found_and_nothing_else(size, attribute):
    rng = np.random.default_rng(0)
    for seed, prompt in enumerate(PROMPTS):
        segments = list(prompt.scene.segments)
        slot = rng.integers(len(segments))
        thing = segments[slot].thing.looks
        taken = (
            {s.thing.shape for s in segments}
            if attribute == "shape"
            else {getattr(thing, attribute)}
        )
        others = [v for v in VALUES[attribute] if v not in taken]
        wrong = dataclasses.replace(thing, **{attribute: str(rng.choice(others))})
        segments[slot] = dataclasses.replace(segments[slot], thing=wrong)
        shown = dataclasses.replace(prompt.scene, segments=tuple(segments))
        verdict = judge(drawn(shown, size, seed), prompt.scene)
        assert verdict.count
        for k, segment in enumerate(verdict.segments):
            wanted = {a: not (k == slot and a == attribute) for a in segment}
            wanted["exact"] = k != slot
            assert segment == wanted, (prompt, slot, wrong)
        broken = attribute == "shape" and prompt.scene.relation
        assert verdict.place is (None if not prompt.scene.relation else not broken)


@pytest.mark.parametrize("size", SIZES_PX)
def test_swapped_attributes_are_both_wrong(size):
    """Binding: the picture has every colour and every shape, but not together."""
    for seed, prompt in enumerate(p for p in PROMPTS if p.group == "two"):
        first, second = (t.looks for t in prompt.scene.things)
        if first.colour == second.colour:
            continue
        swapped = Scene(
            (
                Segment(dataclasses.replace(first, colour=second.colour)),
                Segment(dataclasses.replace(second, colour=first.colour)),
            )
        )
        for _, segment in zip(
            (first, second), judge(drawn(swapped, size, seed), prompt.scene).segments
        ):
            assert segment["shape"] and not segment["exact"]
            assert not segment.get("colour", False)


@pytest.mark.parametrize("size", SIZES_PX)
def test_a_wrong_count_is_found(size):
    thing = Thing("heart", "green")
    for wanted, shown in itertools.product(range(1, 5), repeat=2):
        asked, given = (Scene((Segment(thing, n),)) for n in (wanted, shown))
        verdict = judge(drawn(given, size), asked)
        assert verdict.count == (wanted == shown)
        assert verdict.segments[0]["exact"] == (shown >= wanted)
        assert verdict.all_correct == (wanted == shown)


@pytest.mark.parametrize("size", SIZES_PX)
def test_a_wrong_relation_is_found(size):
    segments = (Segment(Thing("circle", "red")), Segment(Thing("cross", "blue", "hollow", "small")))
    for asked, shown in itertools.product(RELATIONS, repeat=2):
        for seed in range(8):
            verdict = judge(drawn(Scene(segments, shown), size, seed), Scene(segments, asked))
            beside = {"left of", "right of", "next to"}
            if asked == "next to":
                assert verdict.place == (shown in beside)
            elif shown != "next to":
                assert verdict.place == (asked == shown)
            assert all(s["exact"] for s in verdict.segments)


def test_a_relation_needs_both_things():
    scene = Scene((Segment(Thing("circle", "red")), Segment(Thing("cross", "blue"))), "left of")
    alone = Scene((Segment(Thing("circle", "red")),))
    assert judge(drawn(alone, 48), scene).place is False
    assert judge(np.full((48, 48, 3), 255, np.uint8), scene).place is False


def test_what_is_no_thing_counts_as_none():
    assert see(np.full((48, 48, 3), 255, np.uint8)) == []
    assert [s.shape for s in see(np.zeros((48, 48, 3), np.uint8))] == [None]
    scene = Scene((Segment(Thing("circle", "red")),))
    specks = drawn(scene, 48).copy()
    specks[::9, 0] = 0
    assert judge(specks, scene).all_correct
    faint = to_uint8(255 - 0.2 * (255.0 - drawn(scene, 48)))
    assert see(faint) == []
    rainbow = drawn(Scene((Segment(Thing("square", "red")),)), 48).copy()
    inside = rainbow.min(axis=-1) < 60
    rainbow[inside] = (220 * np.eye(3)[np.arange(inside.sum()) % 3]).astype(np.uint8)
    assert [s.colour for s in see(rainbow)] == [None]


@pytest.mark.parametrize("width, height", [(40, 31), (3000, 32), (32, 5000), (200, 90)])
def test_a_picture_too_small_to_tell_things_apart_is_refused(width, height):
    with pytest.raises(InputError, match=f"a picture of {width}x{height} pixels, .* be 32 or more"):
        see(np.full((height, width, 3), 255, np.uint8))


def test_a_verdict_says_only_what_the_prompt_says():
    scene = Scene((Segment(Thing("circle", "red")), Segment(Thing("star", texture="striped"))))
    first, second = judge(drawn(scene, 48), scene).segments
    assert first == {"shape": True, "colour": True, "exact": True}
    assert second == {"shape": True, "texture": True, "exact": True}
    striped = Scene((Segment(Thing("circle", "red", "striped")), scene.segments[1]))
    leaked, _ = judge(drawn(striped, 48), scene).segments
    assert leaked == {"shape": True, "colour": True, "exact": False}


def test_the_weights_put_shapes_before_all_else():
    weights = judging_scenes._WEIGHTS
    assert weights[0] > weights[1:].sum() and weights[1] > weights[2:].sum()
    assert things.MOST == 4
