"""GenEval's published rules, on objects made by hand; and what its judge records of a picture."""

import json

import numpy as np
import pytest

from lidit_jax.evaluation import intervals
from lidit_jax.evaluation.benchmarks import geneval, geneval_rules
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.benchmarks.geneval import TAGS, GenEval
from lidit_jax.evaluation.judges.records import Detection, Judges
from tests.evaluation.made import clause

BENCHMARK = GenEval()


def at(x, y, colour=None, size=10, score=0.95):
    """An object of a record, by its centre."""
    box = [x - size / 2, y - size / 2, x + size / 2, y + size / 2]
    return {"score": score, "box": box} | ({"colour": colour} if colour else {})


TWO_DOGS = [clause("dog", 2)]
DOG_ABOVE_CAT = [clause("cat"), clause("dog", position=["above", 0])]
RED_DOGS = [clause("dog", 2, color="red")]
RED_CAT_BLUE_DOG = [clause("cat", color="red"), clause("dog", color="blue")]
CATS_LEFT = [clause("dog", 2), clause("cat", 2, position=["left of", 0])]
# what a picture holds, what it must, what it must not, whether it is right
PICTURES = {
    "single: there": ({"cat": [at(5, 5)]}, [clause("cat")], [], True),
    "single: more do no harm": ({"cat": [at(5, 5), at(9, 9)]}, [clause("cat")], [], True),
    "single: another": ({"dog": [at(5, 5)]}, [clause("cat")], [], False),
    "two: both": ({"cat": [at(5, 5)], "dog": [at(5, 5)]}, [clause("cat"), clause("dog")], [], True),
    "two: one": ({"cat": [at(5, 5)]}, [clause("cat"), clause("dog")], [], False),
    "counting: too few": ({"dog": [at(1, 1)]}, TWO_DOGS, [clause("dog", 3)], False),
    "counting: just so many": ({"dog": [at(1, 1)] * 2}, TWO_DOGS, [clause("dog", 3)], True),
    "counting: too many": ({"dog": [at(1, 1)] * 3}, TWO_DOGS, [clause("dog", 3)], False),
    "exclude: one too many": ({"cat": [at(5, 5)], "dog": [at(1, 1)]}, [clause("cat")], [clause("dog")], False),
    "exclude: not there": ({"cat": [at(5, 5)]}, [clause("cat")], [clause("dog")], True),
    "exclude: any of them": ({"cat": [at(5, 5)]}, [clause("cat")], [clause("dog"), clause("cat")], False),
    "colors: right": ({"cat": [at(5, 5, "red")]}, [clause("cat", color="red")], [], True),
    "colors: wrong": ({"cat": [at(5, 5, "blue")]}, [clause("cat", color="red")], [], False),
    "colors: only the best": ({"cat": [at(5, 5, "blue"), at(5, 5)]}, [clause("cat", color="red")], [], False),
    "colors: all that are asked": ({"dog": [at(5, 5, "red"), at(5, 5, "red")]}, RED_DOGS, [], True),
    "colors: one of two": ({"dog": [at(5, 5, "red"), at(5, 5, "blue")]}, RED_DOGS, [], False),
    "color_attr: right": ({"cat": [at(5, 5, "red")], "dog": [at(5, 5, "blue")]}, RED_CAT_BLUE_DOG, [], True),
    "color_attr: swapped": ({"cat": [at(5, 5, "blue")], "dog": [at(5, 5, "red")]}, RED_CAT_BLUE_DOG, [], False),
    "position: right": ({"cat": [at(50, 90)], "dog": [at(50, 10)]}, DOG_ABOVE_CAT, [], True),
    "position: upside down": ({"cat": [at(50, 10)], "dog": [at(50, 90)]}, DOG_ABOVE_CAT, [], False),
    "position: beside": ({"cat": [at(50, 50)], "dog": [at(10, 50)]}, DOG_ABOVE_CAT, [], False),
    "position: of nothing": ({"dog": [at(50, 10)]}, DOG_ABOVE_CAT, [], False),
    "position: the best ones count": ({"cat": [at(50, 90), at(50, 0)], "dog": [at(50, 10)]}, DOG_ABOVE_CAT, [], True),
    "position: two at once": ({"cat": [at(90, 90)], "dog": [at(10, 10)]}, DOG_ABOVE_CAT, [], True),
    "position: all to all": ({"dog": [at(60, 5), at(90, 5)], "cat": [at(5, 5), at(20, 5)]}, CATS_LEFT, [], True),
    "position: all but one": ({"dog": [at(60, 5), at(90, 5)], "cat": [at(5, 5), at(75, 5)]}, CATS_LEFT, [], False),
    "position: to all but one": ({"dog": [at(60, 5), at(2, 5)], "cat": [at(20, 5), at(25, 5)]}, CATS_LEFT, [], False),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_right_as_the_published_code_has_it(name):
    objects, include, exclude, right = PICTURES[name]
    assert geneval_rules.is_right(objects, include, exclude) == right


def test_a_clause_that_fails_is_nothing_to_refer_to():
    """The cat is there, and the dog above it, but the cat is of another colour."""
    include = [clause("cat", color="red"), clause("dog", position=["above", 0])]
    objects = {"cat": [at(50, 90, "blue")], "dog": [at(50, 10)]}
    assert not geneval_rules.is_right(objects, include, [])
    assert geneval_rules.is_right(objects | {"cat": [at(50, 90, "red")]}, include, [])


@pytest.mark.parametrize(
    ("x", "y", "wanted"),
    [
        (40, 0, {"right of"}),
        (-40, 0, {"left of"}),
        (0, 40, {"below"}),
        (0, -40, {"above"}),
        (40, -40, {"right of", "above"}),  # (40 - 4) / (40 sqrt 2) = 0.64 along each
        (-40, 40, {"left of", "below"}),
        (40, 20, {"right of"}),  # (20 - 4) / sqrt(2000) = 0.36
        (4, 0, set()),  # a tenth of the sizes, 20 + 20, is taken away: nothing is left
        (3, 3, set()),
        (8, 0, set()),  # (8 - 4) / 8 = 0.5, not more than it
        (8.1, 0, {"right of"}),  # 4.1 / 8.1
        (0, 0, set()),
    ],
)
def test_relations_are_of_what_an_offset_leaves_beyond_a_tenth_of_the_sizes(x, y, wanted):
    box, other = at(100 + x, 100 + y, size=20)["box"], at(100, 100, size=20)["box"]
    assert geneval_rules.relations(box, other) == wanted


def test_each_axis_has_the_sizes_along_it():
    """Two planks, 100 wide and 4 high, of which one lies 10 higher."""
    assert geneval_rules.relations([0, 0, 100, 4], [0, 10, 100, 14]) == {"above"}
    assert geneval_rules.relations([0, 0, 4, 100], [10, 0, 14, 100]) == {"left of"}
    assert geneval_rules.relations([0, 0, 4, 100], [0, 10, 4, 110]) == set()


def found(*scores, label="dog"):
    return [Detection(label, score, (0, 0, 1, 1)) for score in scores]


@pytest.mark.parametrize(("counting", "least"), [(False, 0.3), (True, 0.9)])
def test_a_score_must_exceed_its_threshold(counting, least):
    above = np.nextafter(least, 1)
    kept = geneval_rules.kept(found(least, above, least - 0.01, 0.99), counting)
    assert [d.score for d in kept["dog"]] == [0.99, above]
    assert geneval_rules.kept(found(least), counting) == {}


def test_no_more_than_sixteen_of_a_class_are_kept_and_they_are_the_best():
    scores = np.linspace(0.4, 0.8, 20)
    kept = geneval_rules.kept([*found(*scores), *found(0.5, label="cat")], counting=False)
    assert [d.score for d in kept["dog"]] == sorted(scores, reverse=True)[:16]
    assert len(kept["cat"]) == 1


class Eyes:
    """A detector that has found these, and a CLIP for which a colour's name is all of a sentence.

    A picture's embedding is the colour of its middle pixel.
    """

    identity = "Eyes"

    def __init__(self, *detections):
        self.detections, self.shown, self.sentences = detections, [], []

    def detect(self, image, labels):
        self.labels = labels
        return [d for d in self.detections if d.label in labels]

    def images(self, images):
        self.shown += images
        middle = [tuple(i[i.shape[0] // 2, i.shape[1] // 2]) for i in images]
        return np.array([np.eye(10)[RGB.index(rgb)] for rgb in middle])

    def texts(self, texts):
        self.sentences += texts
        return np.array([np.eye(10)[[c in t for c in geneval.COLOURS].index(True)] for t in texts])


RGB = [(20 * k, 255 - 20 * k, 7) for k in range(10)]
PICTURE = np.full((40, 60, 3), 255, np.uint8)
PICTURE[10:20, 5:25] = RGB[4]  # blue
PICTURE[10:20, 30:50] = RGB[6]  # pink
MASK = np.zeros((40, 60), bool)
MASK[12:20, 5:25] = True


def judged(include, *detections, tag="colors"):
    eyes = Eyes(*detections)
    item = Item("0", "a prompt", tag, {"include": include, "exclude": []})
    return BENCHMARK.judge(PICTURE, item, Judges(detector=eyes, clip=eyes))["objects"], eyes


def test_a_record_has_boxes_and_the_colours_that_a_clause_asks_for():
    blue = Detection("dog", 0.9, (5.0, 10.0, 25.0, 20.0), MASK)
    pink = Detection("dog", 0.8, (30.0, 10.0, 50.0, 20.0))
    cat = Detection("cat", 0.7, (30.0, 10.0, 50.0, 20.0))
    objects, eyes = judged([clause("dog", color="blue"), clause("cat")], pink, cat, blue)
    assert objects == {
        "dog": [
            {"score": 0.9, "box": [5, 10, 25, 20], "colour": "blue"},
            {"score": 0.8, "box": [30, 10, 50, 20]},
        ],
        "cat": [{"score": 0.7, "box": [30, 10, 50, 20]}],
    }
    assert json.loads(json.dumps(objects)) == objects
    assert eyes.labels == ["dog", "cat"]
    assert len(eyes.shown) == 1  # the best dog alone is asked for
    assert eyes.sentences[:3] == ["a photo of a red dog", "a photo of a red-colored dog", "a photo of a red object"]  # fmt: skip
    objects, _ = judged([clause("dog", 2, color="blue")], pink, blue)
    assert [o["colour"] for o in objects["dog"]] == ["blue", "pink"]


def test_counting_has_a_threshold_of_its_own():
    dogs = found(0.95, 0.8)
    assert len(judged([clause("dog")], *dogs, tag="counting")[0]["dog"]) == 1
    assert len(judged([clause("dog")], *dogs, tag="single_object")[0]["dog"]) == 2


def test_an_object_is_shown_on_grey_and_cut_out():
    shown = geneval.shown(PICTURE, Detection("dog", 0.9, (5.0, 10.0, 25.0, 20.0), MASK))
    assert shown.shape == (10, 20, 3)
    assert (shown[:2] == 0x99).all() and (shown[2:] == RGB[4]).all()
    bare = geneval.shown(PICTURE, Detection("dog", 0.9, (5.0, 10.0, 25.0, 20.0)))
    assert (bare == RGB[4]).all()
    speck = Detection("dog", 0.9, (5.6, 10.6, 5.7, 10.8))
    assert geneval.shown(PICTURE, speck).shape == (1, 1, 3)


def test_a_colours_three_sentences_count_alike():
    """Each is of length 1, and so is their mean made again: else long means would win."""

    class Clip:
        def texts(self, texts):
            """Of red the three sentences disagree; of the others they are one vector."""
            places = [k if k < 3 else 3 + (k // 3) % 2 for k in range(len(texts))]
            return np.eye(5)[places]

        def images(self, images):
            return np.array([[0.4, 0.4, 0.4, 0.6, 0]])

    (colour,) = geneval.classified(PICTURE, found(0.9), Clip())
    assert colour == "red"  # 1.2 / sqrt(3) = 0.69, against 0.6


def unbalanced():
    """Ten prompts of single objects, all right; of each other tag one, of which 1 picture of 2 is right."""
    items, records = [], []
    for tag in TAGS:
        for k in range(10 if tag == "single_object" else 1):
            meta = {"include": [clause("cat")], "exclude": []}
            items.append(Item(f"{tag}{k}", f"{tag} {k}", tag, meta))
            right, wrong = {"objects": {"cat": [at(5, 5)]}}, {"objects": {}}
            records.append([right, right if tag == "single_object" else wrong])
    return items, records


@pytest.mark.parametrize("mode", ["reference", "fixed"])
def test_overall_is_the_mean_of_tags_not_of_pictures(mode):
    items, records = unbalanced()
    tallies = BENCHMARK.score(items, records, mode)
    found = intervals.scores(tallies.metrics, tallies.averages, [i.group for i in items])
    assert {name: score.value for name, score in found.items()} == pytest.approx(
        {tag: 1.0 if tag == "single_object" else 0.5 for tag in TAGS}
        | {"overall": (1 + 5 * 0.5) / 6, "prompts_any": 1.0}
    )
    assert found["overall"].value != pytest.approx(25 / 30)  # of pictures


def test_a_prompt_counts_as_right_with_any_right_picture():
    items, records = unbalanced()
    records[0] = [{"objects": {}}] * 2
    tallies = BENCHMARK.score(items, records, "reference").metrics
    assert tallies["prompts_any"].sum_P.sum() == len(items) - 1
    assert tallies["prompts_any"].count_P.sum() == len(items)


@pytest.mark.parametrize("row", sorted(GenEval.paper.keys() - {"DALL-E 3"}))
def test_the_papers_overall_is_the_mean_of_its_tags(row):
    """All are rounded. Of DALL-E 3, the paper prints two objects that do not fit its overall."""
    numbers = GenEval.paper[row]
    assert np.mean([numbers[tag] for tag in TAGS]) == pytest.approx(numbers["overall"], abs=0.0101)


def test_the_papers_numbers_of_lidit_1b():
    assert [GenEval.paper["LI-DiT-1B"][tag] for tag in TAGS] == [0.98, 0.69, 0.48, 0.86, 0.22, 0.37]
    assert GenEval.paper["LI-DiT-1B"]["overall"] == 0.60


def test_the_official_prompts(official):
    items = BENCHMARK.items(official / "geneval")
    counts = {tag: sum(i.group == tag for i in items) for tag in TAGS}
    assert counts == dict(zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True))
    for item in items:
        include, exclude = item.meta["include"], item.meta["exclude"]
        assert bool(exclude) == (item.group == "counting")
        assert all(e["count"] == i["count"] + 1 for i, e in zip(include, exclude))
        assert any("color" in c for c in include) == (item.group in ("colors", "color_attr"))
        assert any("position" in c for c in include) == (item.group == "position")
