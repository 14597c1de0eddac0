"""Sources: every one is finite, lazy, in a fixed order; captions say what the pictures show."""

import json
import pickle
from importlib import metadata

import numpy as np
import pytest

from lidit_jax import shapes_world
from lidit_jax.data import sources
from lidit_jax.data.sources import openmoji
from lidit_jax.errors import InputError
from lidit_jax.evaluation import shapes as judge

SMALL = {"openmoji": {"languages": ("en", "zh")}, "shapes": {"count": 40}}
CHANGED = {"openmoji": {"languages": ("zh", "en")}, "shapes": {"count": 40, "seed": 1}}


def test_every_source_is_tested():
    assert set(SMALL) == set(CHANGED) == set(sources.SOURCES)


@pytest.mark.parametrize("name", SMALL)
def test_a_source_is_finite_and_always_the_same(name):
    source, again = (sources.make(name, **SMALL[name]) for _ in range(2))
    examples = list(source)
    assert len(source) == len(examples) == len({e.key for e in examples})
    assert [(e.key, e.captions) for e in source] == [(e.key, e.captions) for e in again]
    for one, other in zip(examples[::100], list(again)[::100], strict=True):
        assert (one.image(32, 32) == other.image(32, 32)).all()
    assert all(c.text for e in examples for c in e.captions)
    json.dumps([e.metadata for e in examples])


@pytest.mark.parametrize("name", SMALL)
def test_a_description_follows_the_options(name):
    one, same, other = (sources.make(name, **o[name]) for o in (SMALL, SMALL, CHANGED))
    assert {"name", "version", "licence", "options"} == set(one.describe())
    assert one.describe() == same.describe() != other.describe()


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("height, width", [(32, 32), (24, 40), (41, 24)])
def test_a_drawing_is_made_at_the_size_asked_for(name, height, width):
    example = next(iter(sources.make(name, **SMALL[name])))
    image = example.image(height, width)
    assert image.shape == (height, width, 3) and image.dtype == np.uint8
    top, left = (height - 24) // 2, (width - 24) // 2
    if height != width:  # a square in the middle, white beside it
        assert (image[top : top + 24, left : left + 24] == example.image(24, 24)).all()
        image[top : top + 24, left : left + 24] = 255
        assert (image == 255).all()


@pytest.mark.parametrize("name", SMALL)
def test_an_example_survives_pickling(name):
    example = next(iter(sources.make(name, **SMALL[name])))
    assert (pickle.loads(pickle.dumps(example)).image(32, 32) == example.image(32, 32)).all()


def test_wrong_names_are_refused_with_the_known_ones():
    for name, options, message in (
        ("openmojis", {}, "unknown source 'openmojis'; known: openmoji"),
        ("shapes", {"number": 3}, "unknown option of source shapes 'number'; known: count"),
        ("shapes", {"split": "test"}, "known: held_out, train"),
        ("shapes", {"count": -1}, "count is -1"),
        ("openmoji", {"subset": "al"}, "unknown subset of source openmoji 'al'; known: all"),
        ("openmoji", {"languages": ("en", "fr")}, "language of source openmoji 'fr'; known: en"),
        ("openmoji", {"languages": ()}, "no language"),
    ):
        with pytest.raises(InputError, match=message):
            sources.make(name, **options)


def test_shapes_show_what_their_captions_say():
    for split in ("train", "held_out"):
        scenes = set(shapes_world.split(shapes_world.all_scenes())[split == "held_out"])
        for example in sources.make("shapes", count=100, split=split):
            scene = shapes_world.parse(example.captions[0].text)
            assert scene in scenes
            assert judge.judge(example.image(32, 32), scene).all_correct, example


def test_shapes_example_depends_on_seed_and_index_alone():
    few, many, other = (
        list(sources.make("shapes", count=n, seed=seed)) for n, seed in ((20, 0), (40, 0), (40, 1))
    )
    assert [e.captions for e in few] == [e.captions for e in many[:20]]
    assert (few[7].image(32, 32) == many[7].image(32, 32)).all()
    assert [e.captions for e in many] != [e.captions for e in other]


def test_one_in_eight_shapes_pictures_has_a_single_object():
    captions = [e.captions[0].text for e in sources.make("shapes", count=2000)]
    single = np.mean([len(shapes_world.parse(c).objects) == 1 for c in captions])
    assert abs(single - 1 / 8) < 0.03
    assert len(set(captions)) > 1500


@pytest.fixture(scope="module")
def both():
    return {
        s: list(sources.make("openmoji", subset=s, languages=("en", "zh")))
        for s in ("learnable", "all")
    }


def test_openmoji_without_flags_lacks_nothing_else(both):
    with_flags = [e.captions[0].text for e in both["learnable"]]
    without = [e.captions[0].text for e in sources.make("openmoji", flags=False)]
    assert without == [t for t in with_flags if not t.startswith("flag of ")]
    assert 0 < len(without) < len(with_flags)


def test_openmoji_learnable_is_a_plain_part_of_all(both):
    keys = {e.key for e in both["learnable"]}
    assert keys < {e.key for e in both["all"]}
    assert 700 <= len(keys) <= 800 and len(both["all"]) > 3900
    assert not any("-200D-" in k or "-1F3F" in k for k in keys)
    for span in openmoji.LEARNABLE.values():  # every line of the table names drawings
        assert any(k.startswith(span.split()[0].split("-")[0]) for k in keys), span


def test_openmoji_captions_tell_pictures_apart(both):
    for examples in both.values():
        texts = [c.text for e in examples for c in e.captions]
        assert len(set(texts)) == len(texts) == 2 * len(examples)
        assert all([c.language for c in e.captions] == ["en", "zh"] for e in examples)


def test_openmoji_names_what_is_drawn(both):
    found = {e.captions[0].text: e for e in both["learnable"]}
    for text, chinese, rgb in (
        ("red heart", "红心", (210, 47, 39)),
        ("purple circle", "紫色圆", (138, 102, 173)),
        ("black flag", "黑旗", None),
        ("flag of England", "英格兰旗帜", None),
        ("flag of Poland", "波兰旗帜", None),
    ):
        assert found[text].captions[1].text == chinese
        if rgb:
            centre = found[text].image(64, 64)[32, 32].astype(int)
            assert np.abs(centre - rgb).max() < 40, (text, centre)
    flag = found["flag of Poland"].image(64, 64).astype(int)
    assert (flag[:8] == 255).all()
    assert flag[28, 32].min() > 220 and flag[36, 32, 0] > 180 > 100 > flag[36, 32, 2]


def test_the_first_of_two_namesakes_stays():
    def drawing(emoji, *names):
        return openmoji._Drawing(None, emoji, dict(zip(("en", "zh"), names, strict=True)))

    drawings = [drawing("1", "star", "星"), drawing("2", "star", "星星"), drawing("3", "sun", "星")]
    drawings.append(drawing("4", "moon", "月"))
    assert [d.emoji for d in openmoji._without_namesakes(drawings)] == ["1", "4"]


def test_a_missing_package_is_named(monkeypatch):
    def version(package):
        if package == "resvg-py":
            raise metadata.PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(openmoji.metadata, "version", version)
    with pytest.raises(InputError, match=r"needs the package resvg-py: pip install .*\[data\]"):
        sources.make("openmoji")
