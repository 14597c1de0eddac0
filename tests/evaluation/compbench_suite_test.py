"""T2I-CompBench from prompts to metrics: what is asked of a picture, and what its answers make."""

import json
from collections import Counter

import numpy as np
import pytest

from lidit_jax.evaluation import clip_score
from lidit_jax.evaluation.benchmarks.compbench import suite
from lidit_jax.evaluation.benchmarks.compbench.suite import CompBench, complex_kind, item
from lidit_jax.evaluation.intervals import scores
from lidit_jax.evaluation.judges.records import Answer, Detection, Judges

BENCHMARK = CompBench()
IMAGE = np.zeros((256, 512, 3), np.uint8)


class Recorder:
    """Every judge in one; it remembers what it was asked."""

    identity = "Recorder:0"

    def __init__(self):
        self.asked = []

    def ask(self, image, questions):
        self.asked += questions
        return [Answer(0.5, "no") for _ in questions]

    def detect(self, image, labels):
        self.asked += labels
        seen = [Detection(n, 0.9, (200.0 * k, 0, 200.0 * k + 50, 50)) for k, n in enumerate(labels)]
        return [*seen, Detection(labels[0], 0.3, (0, 0, 9, 9))]  # not more than the threshold

    def images(self, images):
        return np.array([[0.6, 0.8]], np.float32)

    def texts(self, texts):
        self.asked += texts
        return np.array([[1.0, 0.0]], np.float32)


def judged(category, text):
    judge = Recorder()
    asked = item(category, 0, text)
    record = BENCHMARK.judge(IMAGE, asked, Judges(judge, judge, judge))
    json.dumps([dict(asked.meta), record], allow_nan=False)
    return asked, record, judge.asked


def value(category, text, mode="fixed"):
    asked, record, _ = judged(category, text)
    (tally,) = BENCHMARK.score([asked], [[record]], mode).metrics.values()
    return tally.sum_P.item()


def test_each_category_asks_its_judges():
    for category in suite.ATTRIBUTES:
        _, record, asked = judged(category, "a red cup and a blue hat")
        assert asked == ["a red cup?", "a blue hat?"]
        assert record == {"chunker": "rule", "vqa": [["a red cup?", 0.5], ["a blue hat?", 0.5]]}
    _, record, asked = judged("spatial", "a girl on the left of a lamp")
    assert asked == ["person", "lamp"] and record["size"] == [256, 512]
    assert record["found"][0] == ["person", 0.9, [0.0, 0, 50.0, 50]] and len(record["found"]) == 2
    _, record, asked = judged("numeracy", "two hens and one cat")
    assert asked == ["hen", "cat"] and len(record["found"]) == 2
    assert judged("numeracy", "two men and one woman")[2] == ["person"]
    _, record, asked = judged("non_spatial", "A tired man reads.")
    assert asked == ["A tired man reads."] and record["clip"] == pytest.approx(0.6)


def test_values_of_single_categories():
    assert value("color", "a red cup and a blue hat") == 0.25
    assert value("spatial", "a girl on the left of a lamp") == pytest.approx(0.25 * 1.8 + 0.5)
    assert value("numeracy", "two hens and one cat") == 0.75
    assert value("non_spatial", "A tired man reads.") == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("The red cup was on top of the tall box.", "spatial"),
        ("The red cups are on the left of the box.", "spatial"),
        ("The red hen sat on top of the tall box.", "both"),
        ("The red cup was hung near the tall box.", "both"),
        ("The red cup was hung above the tall box.", "action"),
    ],
)
def test_complex_prompts_are_of_three_kinds(text, kind):
    assert complex_kind(text) == kind


def test_complex_is_the_mean_of_what_its_kind_asks():
    """BLIP 0.25, spatial 0.95, CLIP 0.6; adjectives are not told to CLIP."""
    assert value("complex", "The red hat was next to the blue cup.") == pytest.approx(
        (0.25 + 0.95) / 2
    )
    assert value("complex", "The red hen chased the blue fox.") == pytest.approx((0.25 + 0.6) / 2)
    text = "The red hen slept next to the blue cup."
    assert value("complex", text) == pytest.approx((0.25 + 0.95 + 0.6) / 3)
    assert judged("complex", text)[2] == [
        "the red hen?", "the blue cup?", "The hen slept next to the cup .", "hen", "cup",
    ]  # fmt: skip


def test_a_complex_prompt_without_two_nouns_scores_nothing_spatial():
    asked, record, _ = judged("complex", "It was next to the blue cup.")
    assert asked.meta["pair"] is None and record["found"] == []
    assert value("complex", "It was next to the blue cup.") == pytest.approx((0.5 + 0) / 2)


def test_clip_score_is_the_cosine_itself():
    class Away(Recorder):
        def texts(self, texts):
            return np.array([[0.0, -1.0]], np.float32)

    assert clip_score.cosine(IMAGE, "x", Recorder()) == pytest.approx(0.6)
    assert clip_score.cosine(IMAGE, "x", Away()) == pytest.approx(-0.8)


def test_metrics_are_means_over_pictures_and_t2i_avg_of_three_categories():
    items = [item(c, k, "a red cup") for c, n in zip(suite.ATTRIBUTES, (1, 2, 1)) for k in range(n)]
    answers = [(0.2, 0.4), (1.0, 1.0), (0.5, 0.7), (0.0, 0.1)]
    records = [[{"vqa": [["a red cup?", p]]} for p in of] for of in answers]
    tallies = BENCHMARK.score(items, records, "reference")
    found = scores(tallies.metrics, tallies.averages)
    assert {name: round(s.value, 6) for name, s in found.items()} == {
        "color": 0.3,
        "shape": 0.8,
        "texture": 0.05,
        "t2i_avg": round((0.3 + 0.8 + 0.05) / 3, 6),
    }
    assert tallies.scale == 100
    assert not BENCHMARK.score(items[:1], records[:1], "fixed").averages


def test_the_papers_numbers_are_of_table_1():
    assert BENCHMARK.paper["LI-DiT-1B"] == {
        "color": 74.08, "shape": 59.34, "texture": 69.59, "spatial": 27.57,
    }  # fmt: skip
    assert set(BENCHMARK.paper["DALL-E 3"]) == set(suite.ATTRIBUTES)


def test_the_official_prompts(official):
    items = BENCHMARK.items(official / "t2i_compbench")
    assert Counter(i.group for i in items) == dict.fromkeys(suite.CATEGORIES, 300)
    assert len({i.id for i in items}) == 2100
    json.dumps([dict(i.meta) for i in items])
    kinds = Counter(complex_kind(i.text) for i in items if i.group == "complex")
    assert kinds == {"action": 213, "spatial": 58, "both": 29}
    assert all(i.meta["questions"] for i in items if i.group in suite.ATTRIBUTES)
    assert all(i.meta["counts"] for i in items if i.group == "numeracy")
    assert all(i.meta["pair"] for i in items if "pair" in i.meta)
