"""Numbers by hand: what a prompt counts, what is detected, and what a picture gets for it."""

import numpy as np
import pytest

from lidit_jax.evaluation.benchmarks.compbench import detections, numeracy
from lidit_jax.evaluation.benchmarks.compbench.chunks import by_rule
from lidit_jax.evaluation.judges.records import Detection


@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("eight mice", [["mouse", 8]]),
        ("three women and one tomato", [["person", 3], ["tomato", 1]]),
        ("five buses waited at a station", [["bus", 5]]),
        ("two knives were sharpened near six peaches", [["knife", 2], ["peach", 6]]),
        ("a fox, two deer, and an owl filled the room", [["fox", 1], ["deer", 2], ["owl", 1]]),
        ("four red cherries and seven ice cream cones", [["red cherry", 4], ["ice cream cone", 7]]),
        ("the glass", []),
    ],
)
def test_what_a_prompt_counts(prompt, wanted):
    assert numeracy.wanted(by_rule(prompt)) == wanted


@pytest.mark.parametrize(
    ("plural", "single"),
    [
        ("knives", "knife"), ("leaves", "leaf"), ("cherries", "cherry"), ("glasses", "glass"),
        ("tomatoes", "tomato"), ("vases", "vase"), ("horses", "horse"), ("couches", "couch"),
        ("keys", "key"), ("people", "person"), ("fish", "fish"), ("glass", "glass"), ("bus", "bus"),
        ("olives", "olive"), ("cell phones", "cell phone"), ("shoes", "shoe"), ("ties", "tie"),
        ("flies", "fly"), ("pies", "pie"), ("canoes", "canoe"), ("octopuses", "octopus"),
    ],
)  # fmt: skip
def test_singulars(plural, single):
    assert numeracy.singular(plural) == single


def found(**counts):
    """Detections of these, far from one another."""
    return [
        [name, 0.9, [100 * k, 0, 100 * k + 50, 50]] for name, n in counts.items() for k in range(n)
    ]


THREE = [["cat", 2], ["dog", 1], ["hen", 4]]


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (found(cat=2, dog=1, hen=4), 1.0),
        (found(cat=3, dog=1, hen=4), 5 / 6),
        (found(cat=1, dog=2, hen=3), 1 / 2),
        (found(cat=2), 1 / 3),
        (found(cat=1), 1 / 6),
        (found(fox=5), 0.0),
    ],
)
def test_each_object_weighs_alike_half_for_presence_and_half_for_number(seen, wanted):
    assert numeracy.score(THREE, seen) == pytest.approx(wanted)


def test_a_prompt_that_counts_nothing_scores_zero():
    assert numeracy.score([], found(cat=1)) == 0


@pytest.mark.parametrize(
    ("other", "n"),
    [
        (["cat", 0.5, [0, 0, 100, 91]], 1),  # IoU 0.91
        (["cat", 0.5, [10, 10, 20, 20]], 1),  # a part of the first
        (["cat", 0.5, [-100, -100, 200, 200]], 1),  # the first is a part of it
        (["cat", 0.5, [0, 15, 100, 115]], 2),  # 0.85 of each
        (["cat", 0.5, [0, 10, 100, 110]], 2),  # 0.9 of each is not more than 0.9
        (["dog", 0.5, [0, 0, 100, 100]], 2),  # another label
    ],
)
def test_boxes_of_one_label_that_overlap_are_one_object(other, n):
    first = ["cat", 0.9, [0, 0, 100, 100]]
    assert numeracy.distinct([first, other])[0] == first
    assert len(numeracy.distinct([first, other])) == n


class Eyes:
    """A detector that sees these (label, score, box), whatever it is shown."""

    def __init__(self, *seen):
        self.seen = [Detection(label, score, box) for label, score, box in seen]

    def detect(self, image, labels):
        return self.seen


def test_of_detections_that_overlap_by_more_than_half_the_best_counts():
    best, box = ("cat", 0.9, (0.0, 0.0, 100.0, 100.0)), (0.0, 0.0, 100.0, 60.0)  # IoU 0.6
    half = ("cat", 0.7, (0.0, 0.0, 100.0, 50.0))  # of the best, and 0.83 of the next, which is none
    eyes = Eyes(best, ("cat", 0.8, box), half, ("dog", 0.6, box), ("cat", 0.3, (200, 0, 300, 90)))
    found = detections.detect(eyes, np.zeros((1, 1, 3), np.uint8), ["cat", "dog"])
    assert [one[:2] for one in found] == [["cat", 0.9], ["cat", 0.7], ["dog", 0.6]]
