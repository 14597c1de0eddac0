"""The rules of relations: a table of (phrase, boxes) -> score, by hand."""

import pytest

from lidit_jax.evaluation.benchmarks import prompt_files
from lidit_jax.evaluation.benchmarks.compbench import spatial
from lidit_jax.evaluation.benchmarks.compbench.chunks import by_rule

SIZE = (479, 479)  # as the published detector sees pictures


def box(x, y, side=20):
    """A square around a centre."""
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


def beside(iou, side=110):
    """Two squares side by side with this intersection over union."""
    shift = side * (1 - iou) / (1 + iou)
    return box(100, 100, side), box(100 + shift, 100, side)


@pytest.mark.parametrize(
    ("phrase", "first", "second", "wanted"),
    [
        ("next to", box(100, 100), box(249, 100), 1),
        ("near", box(100, 100), box(400, 249), 1),  # close on one axis is near
        ("near", box(100, 100), box(250, 250), 1),  # 150 / 150
        ("on side of", box(100, 100), box(300, 350), 150 / 250),
        ("on side of", box(300, 350), box(100, 100), 150 / 250),
        ("on the left of", box(100, 100), box(200, 199), 1),
        ("on the left of", box(100, 100), box(200, 200), 0),  # neither axis is longer
        ("on the left of", box(100, 100), box(200, 201), 0),
        ("on the left of", box(200, 100), box(100, 100), 0),
        ("on the left of", box(100, 100), box(100, 100), 0),
        ("on the right of", box(200, 100), box(100, 100), 1),
        ("on the right of", box(100, 100), box(200, 100), 0),
        ("on the top of", box(100, 100), box(100, 200), 1),  # y points down
        ("on the top of", box(100, 200), box(100, 100), 0),
        ("on the bottom of", box(100, 200), box(100, 100), 1),
        ("on the bottom of", box(100, 100), box(100, 200), 0),
        ("on the bottom of", box(100, 200), box(220, 100), 0),
        ("on the left of", *beside(0.09), 1),
        ("on the left of", *beside(0.1), 1),  # 0.1 / 0.1: the rule has no step
        ("on the left of", *beside(0.2), 0.5),
        ("on the left of", *beside(0.5), 0.2),
        ("on top of", box(100, 100), box(100, 200), 0),  # no rule
    ],
)
def test_relations(phrase, first, second, wanted):
    assert spatial.holds(phrase, first, second, 150) == pytest.approx(wanted)


def score(phrase, *found, pair=("cat", "sofa"), size=SIZE, mode="reference"):
    return spatial.score(phrase, pair, found, size, mode)


LEFT = ["cat", 0.8, box(100, 100)], ["sofa", 0.6, box(300, 100)]


def test_a_score_is_a_quarter_of_each_object_and_half_of_the_relation():
    assert score("on the left of", *LEFT) == pytest.approx(0.25 * 0.8 + 0.25 * 0.6 + 0.5)
    far = ["cat", 0.8, box(0, 0)], ["sofa", 0.6, box(300, 300)]
    assert score("on side of", *far) == pytest.approx(0.2 + 0.15 + 0.5 * 0.5)


def test_a_score_below_a_half_is_zero():
    apart = [["cat", 1.0, box(0, 0)], ["sofa", 0.6, box(600, 600)]]
    assert score("near", *apart) == pytest.approx(0.25 + 0.15 + 0.125)
    apart[1][1] = 0.4  # 0.475
    assert score("near", *apart) == 0
    assert score("on the right of", ["cat", 1.0, box(0, 0)], ["sofa", 1.0, box(9, 0)]) == 0.5


def test_one_object_alone_or_none_scores_zero():
    assert score("near", ["cat", 1.0, box(0, 0)]) == score("near") == 0
    assert score("near", *LEFT, pair=None) == 0


def test_the_first_detection_of_each_object_counts():
    worse = ["cat", 0.5, box(400, 100)]
    assert score("on the left of", *LEFT, worse) == score("on the left of", *LEFT)
    assert score("on the left of", worse, *LEFT) == 0


@pytest.mark.parametrize("mode", ["reference", "fixed"])
@pytest.mark.parametrize(
    ("size", "side"),  # of what the published detector sees, over the picture's
    [((512, 512), 479 / 512), ((256, 256), 479 / 256), ((1024, 768), 480 / 1024), ((768, 1024), 480 / 1024)],
)  # fmt: skip
def test_nearness_is_of_the_picture_as_the_published_detector_sees_it(size, side, mode):
    at = 300 / side  # 300 of its pixels
    found = ["cat", 1.0, box(0, 0)], ["sofa", 1.0, box(at, at)]
    assert score("near", *found, size=size, mode=mode) == pytest.approx(0.5 + 0.5 * 150 / 300)


def test_on_top_of_has_a_rule_when_fixed_alone():
    found = ["cat", 0.8, box(100, 100)], ["sofa", 0.6, box(100, 200)]
    assert score("on top of", *found) == 0
    assert score("on top of", *found, mode="fixed") == score("on the top of", *found) > 0.5


def test_the_first_phrase_of_the_list_is_the_locality():
    assert spatial.locality("a cat near a dog next to a hen") == "next to"
    assert spatial.locality("a cat on the top of a sofa") == "on the top of"
    assert spatial.locality("a cat on top of a sofa") == "on top of"
    assert spatial.locality("a cat above a sofa") is None


@pytest.mark.parametrize("person", ["girl", "boy", "man", "woman"])
def test_girls_boys_men_and_women_are_persons(person):
    parsed = by_rule(f"a {person} on the left of a lamp")
    for in_complex in (False, True):
        assert spatial.objects(parsed, in_complex) == ["person", "lamp"]
        assert spatial.objects(by_rule("next to a lamp"), in_complex) is None


def test_of_a_complex_prompt_the_objects_are_around_its_phrase():
    parsed = by_rule("The red apple sat next to the fuzzy peach and the pear.")
    assert spatial.objects(parsed, in_complex=True) == ["apple", "peach"]
    assert spatial.objects(parsed, in_complex=False) == ["apple", "pear"]


def test_localities_of_the_official_prompts(official):
    folder = official / "t2i_compbench"
    lines = prompt_files.read_lines(folder, prompt_files.COMPBENCH["spatial"])
    found = [spatial.locality(line) for line in lines]
    assert {phrase: found.count(phrase) for phrase in spatial.LOCALITIES} == {
        "near": 24,
        "next to": 24,
        "on side of": 37,
        "on the bottom of": 52,
        "on the left of": 51,
        "on the right of": 56,
        "on the top of": 56,
        "on top of": 0,
    }
