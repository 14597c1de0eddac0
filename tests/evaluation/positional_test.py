"""The positional-bias benchmark: planted bias is recovered, none is found where there is none."""

import collections
import json

import numpy as np
import pytest
from PIL import Image

from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks.positional import Positional, estimate
from lidit_jax.evaluation.intervals import scores
from lidit_jax.evaluation.judges.records import Answer, Judges
from lidit_jax.evaluation.positional import bias, plot, prompts

NOUNS = "car bowl cat bench apple orange shoe sofa lamp vase".split()
PAIRS = {
    family: [(a, n) for a in adjectives[:6] for n in NOUNS]
    for family, adjectives in prompts.ADJECTIVES.items()
}


def files(folder, lines, parts=("val",)):
    for family in prompts.FAMILIES:
        for part in parts:
            (folder / f"{family}_{part}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_vocabulary_is_what_lines_of_the_form_say(tmp_path):
    lines = [
        "a red car and an orange bowl",
        "an orange stop sign and a red car.",
        "a crimson rug and a blue sofa",
        "red shoes and a blue bowl",
        "The red car is beside a blue sofa",
    ]
    found = prompts.vocabulary(files(tmp_path, lines))
    wanted = [("blue", "sofa"), ("orange", "bowl"), ("orange", "stop sign"), ("red", "car")]
    assert found == {"color": wanted, "texture": [], "shape": []}


def test_both_parts_are_read_and_one_is_enough(tmp_path):
    files(tmp_path, ["a red car and a blue sofa"])
    (tmp_path / "color_train.txt").write_text("a green cat and a pink lamp")
    assert len(prompts.vocabulary(tmp_path)["color"]) == 4
    (tmp_path / "color_val.txt").unlink()
    assert len(prompts.vocabulary(tmp_path)["color"]) == 2
    (tmp_path / "shape_val.txt").unlink()
    with pytest.raises(InputError, match="neither shape_train.txt nor shape_val.txt"):
        prompts.vocabulary(tmp_path)


def test_the_official_files_give_a_thousand_prompts(official):
    pairs = prompts.vocabulary(official / "t2i_compbench")
    assert {family: len(of) for family, of in pairs.items()} == {
        "color": 265,
        "texture": 77,
        "shape": 315,
    }
    made = prompts.generate(pairs)
    assert collections.Counter(p.family for p in made) == prompts.FAMILIES
    for p in made:
        assert all(tuple(s.split(" ", 1)) in pairs[p.family] for s in p.segments)


@pytest.mark.parametrize("design", prompts.DESIGNS)
def test_prompts_are_the_same_for_the_same_seed(design):
    made = prompts.generate(PAIRS, 120, design)
    assert len(made) == len({p.text for p in made}) == 120
    assert made == prompts.generate(PAIRS, 120, design)
    assert made != prompts.generate(PAIRS, 120, design, seed=1)
    assert collections.Counter(p.family for p in made) == {"color": 48, "texture": 36, "shape": 36}
    for p in made:
        assert len({s.split(" ", 1)[1] for s in p.segments}) == 4
    if design == "random":
        assert len({p.base for p in made}) == 120


def test_under_the_latin_design_each_segment_stands_once_at_each_place():
    bases = collections.defaultdict(list)
    for p in prompts.generate(PAIRS, 120):
        bases[p.base].append(p.segments)
    assert len(bases) == 30
    for rotations in bases.values():
        for place in range(4):
            assert {r[place] for r in rotations} == set(rotations[0])


def test_prompts_are_english():
    made = prompts._prompt("color", ("red car", "orange cat", "blue shoes", "gold glass"), 0, 1)
    assert made.text == "An orange cat, blue shoes, a gold glass, and a red car."
    assert prompts.with_article("round lotus") == "a round lotus"
    assert prompts.with_article("big set of keys") == "a big set of keys"


def test_bad_requests_are_refused():
    with pytest.raises(InputError, match="unknown design 'square'; known: latin, random"):
        prompts.generate(PAIRS, design="square")
    for count in (0, 30, 42, -40):
        with pytest.raises(InputError, match="want a multiple of 40"):
            prompts.generate(PAIRS, count)
    with pytest.raises(InputError, match="family texture has 3 pairs of 3 nouns.*train files"):
        prompts.generate(PAIRS | {"texture": PAIRS["texture"][:3]})


@pytest.mark.parametrize("design", prompts.DESIGNS)
def test_every_set_there_is_can_be_asked_for_and_no_more(design):
    # Two adjectives for each of five nouns make 80 sets: as many as color has of 200.
    pairs = {f: [(a, n) for a in of[:2] for n in NOUNS[:5]] for f, of in prompts.ADJECTIVES.items()}
    each = 4 if design == "latin" else 1
    made = prompts.generate(pairs, 200 * each, design)
    assert len({p.text for p in made}) == 200 * each
    assert len({frozenset(p.segments) for p in made}) == 200
    with pytest.raises(InputError, match="10 pairs of 5 nouns, which make 80 sets of 4; want 96"):
        prompts.generate(pairs, 240 * each, design)


def oracle(drops, bases=30, seed=0, hard=0.25):
    """Scores of a Latin design where segments differ in difficulty, and places lower them by `drops`."""
    rng = np.random.default_rng(seed)
    found, ids = [], []
    for base in range(bases):
        ease_4 = rng.uniform(0.5 - hard, 0.5 + hard, 4)
        for rotation in range(4):
            chance_4 = np.roll(ease_4, -rotation) - np.asarray(drops)
            found.append((rng.random((4, 4)) < chance_4).mean(axis=0).tolist())  # of four pictures
            ids.append(base)
    return found, ids


def test_a_planted_drop_is_recovered():
    planted = [0, 0.05, 0.1, 0.2]
    covered = collections.Counter()
    for seed in range(120):
        found = bias.estimate(*oracle(planted, seed=seed), resamples=300)
        covered["drop"] += found.drop.low <= 20 <= found.drop.high
        covered["slope"] += found.slope.low <= -6.5 <= found.slope.high
    assert all(108 <= n <= 119 for n in covered.values()), covered  # 95% of 120 is 114


def test_without_bias_none_is_found():
    covered = sum(
        found.drop.low <= 0 <= found.drop.high and found.slope.low <= 0 <= found.slope.high
        for found in (bias.estimate(*oracle([0] * 4, seed=s), resamples=300) for s in range(120))
    )
    assert 104 <= covered <= 119, covered


def test_what_segments_say_explains_nothing_under_the_latin_design():
    """However different segments are in difficulty, an oracle that knows no places has no drop at all."""
    rng, found, ids = np.random.default_rng(0), [], []
    for base in range(10):
        ease_4 = rng.permutation([0.0, 0.1, 0.9, 1.0])
        found += [np.roll(ease_4, -r).tolist() for r in range(4)]
        ids += [base] * 4
    measured = bias.estimate(found, ids)
    for score in (measured.drop, measured.slope, measured.relative_drop):
        assert max(abs(score.low), abs(score.high)) < 1e-9
    assert all(b.value == pytest.approx(50) for b in measured.bins)


def test_numbers_are_as_computed_by_hand():
    measured = bias.estimate([[1.0, 0.8, 0.6, 0.4], [0.6, 0.6, 0.6, 0.6]], [0, 1])
    assert [round(b.value, 6) for b in measured.bins] == [80, 70, 60, 50]
    assert measured.slope.value == pytest.approx(-10) and measured.drop.value == pytest.approx(30)
    assert measured.relative_drop.value == pytest.approx(0.375)
    assert measured.all_right.value == 50
    assert (measured.drop.low, measured.drop.high) == (pytest.approx(0), pytest.approx(60))


@pytest.mark.filterwarnings("error")
def test_there_is_no_relative_drop_from_nothing():
    measured = bias.estimate([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0]], [0, 1])
    assert np.isnan(measured.relative_drop.value) and measured.drop.value == -100


def test_prompts_of_another_length_fall_into_quarters():
    two, eight = [1.0, 0.0], [1, 1, 0, 0, 1, 1, 0, 0]
    measured = bias.estimate([two, eight], [0, 1])
    # two: bins 1 and 3; eight: two to a bin
    assert [b.value for b in measured.bins] == [100, pytest.approx(100 / 3), 100, 0]
    with pytest.raises(ValueError, match="no prompt has a segment in each of 4 bins"):
        bias.estimate([two], [0])
    with pytest.raises(ValueError, match="1 prompts' scores, 2 bases"):
        bias.estimate([eight], [0, 1])


class Asked:
    """Says yes to what is red."""

    identity = "asked"

    def ask(self, image, questions):
        self.questions = list(questions)
        return [Answer(0.9 if " red " in f" {q}" else 0.2, "") for q in questions]


def test_a_vqa_judge_is_asked_for_every_segment(tmp_path):
    benchmark, vqa = Positional(), Asked()
    lines = [f"a {a} {n} and a {a} {n}" for of in PAIRS.values() for a, n in of]
    items = benchmark.items(files(tmp_path, lines, ("train", "val")))
    assert len(items) == 1_000 and json.loads(json.dumps(items[0].meta))["base"] == 0
    chosen = [i for i in items if sum(s.startswith("red ") for s in i.meta["segments"]) == 1][:8]
    assert len(chosen) == 8
    records = [[benchmark.judge(np.zeros((8, 8, 3), np.uint8), i, Judges(vqa=vqa))] for i in chosen]
    assert vqa.questions[0] == prompts.with_article(chosen[-1].meta["segments"][0]) + "?"
    tallies = benchmark.score(chosen, records, "reference")
    found = scores(tallies.metrics, tallies.averages)
    values = [found[f"quarter_{k}"].value for k in (1, 2, 3, 4)]
    assert sum(values) == pytest.approx(0.9 + 3 * 0.2) and found["all_right"].value == 0
    bins = [b.value / 100 for b in estimate(chosen, records).bins]
    np.testing.assert_allclose(bins, values)


def test_the_plot_is_a_picture_with_a_bar_for_each_quarter(tmp_path):
    found = {name: bias.estimate(*oracle([0, 0, 0, d])) for name, d in (("a", 0.0), ("b", 0.3))}
    plot.plot(tmp_path / "bias.png", found)
    assert min(Image.open(tmp_path / "bias.png").size) > 300


def test_a_single_models_plot_has_room_for_the_legend(tmp_path):
    plot.plot(tmp_path / "bias.png", {"a": bias.estimate(*oracle([0, 0, 0, 0.3]))})
    picture = np.asarray(Image.open(tmp_path / "bias.png").convert("L"))
    assert (picture[:, [0, -1]] > 250).all()  # nothing is cut off at the sides
