"""The positional-bias benchmark: planted bias is recovered, none is found where there is none."""

import collections
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from lidit_jax import prompts as prompt_files
from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks import measuring
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.benchmarks.positional import Positional
from lidit_jax.evaluation.intervals import scores
from lidit_jax.evaluation.judges.records import Answer, Judges
from lidit_jax.evaluation.positional import bias, plot, prompts

NOUNS = "car bowl cat bench apple orange shoe sofa lamp vase".split()
PAIRS = {
    family: [(a, n) for a in adjectives[:6] for n in NOUNS]
    for family, adjectives in prompts.ADJECTIVES.items()
}


def files(folder, lines, parts=("train",)):
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
    (tmp_path / "color_val.txt").write_text("a green cat and a pink lamp")
    assert len(prompts.vocabulary(tmp_path)["color"]) == 4
    (tmp_path / "color_train.txt").unlink()
    assert len(prompts.vocabulary(tmp_path)["color"]) == 2
    (tmp_path / "shape_train.txt").unlink()
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


def test_prompts_are_the_same_for_the_same_seed():
    made = prompts.generate(PAIRS, 120)
    assert len(made) == len({p.text for p in made}) == 120
    assert made == prompts.generate(PAIRS, 120)
    assert made != prompts.generate(PAIRS, 120, seed=1)
    assert collections.Counter(p.family for p in made) == {"color": 48, "texture": 36, "shape": 36}
    for p in made:
        assert len({s.split(" ", 1)[1] for s in p.segments}) == 4


def test_each_segment_stands_once_at_each_place():
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
    for count in (0, 30, 42, -40):
        with pytest.raises(InputError, match="want a multiple of 40"):
            prompts.generate(PAIRS, count)
    with pytest.raises(InputError, match="family texture has 3 pairs of 3 nouns.*train and val"):
        prompts.generate(PAIRS | {"texture": PAIRS["texture"][:3]})


def test_every_set_there_is_can_be_asked_for_and_no_more():
    # Two adjectives for each of five nouns make 80 sets: as many as color has of 200.
    pairs = {f: [(a, n) for a in of[:2] for n in NOUNS[:5]] for f, of in prompts.ADJECTIVES.items()}
    made = prompts.generate(pairs, 800)
    assert len({p.text for p in made}) == 800
    assert len({frozenset(p.segments) for p in made}) == 200
    with pytest.raises(InputError, match="10 pairs of 5 nouns, which make 80 sets of 4; want 96"):
        prompts.generate(pairs, 960)


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
    measured = scores(bias.tallies(found), {}, units_P=ids)
    for name in ("drop", "slope", "relative_drop"):
        assert max(abs(measured[name].low), abs(measured[name].high)) < 1e-9
    assert all(measured[name].value == pytest.approx(50) for name in bias.QUARTERS)
    told = bias.estimate(found, ids)
    assert (told.drop, told.slope) == (measured["drop"], measured["slope"])


def test_numbers_are_as_computed_by_hand():
    given = [[1.0, 0.8, 0.6, 0.4], [0.6, 0.6, 0.6, 0.6]]
    measured = scores(bias.tallies(given), {}, units_P=[0, 1])
    assert {name: round(score.value, 6) for name, score in measured.items()} == {
        **{"quarter_1": 80, "quarter_2": 70, "quarter_3": 60, "quarter_4": 50},
        **{"slope": -10, "drop": 30, "relative_drop": 37.5, "all_right": 50},
    }
    drop = measured["drop"]
    assert (drop.low, drop.high) == (pytest.approx(0), pytest.approx(60))
    told = bias.estimate(given, [0, 1])
    assert told.bins == tuple(measured[name] for name in bias.QUARTERS)


def test_there_is_no_relative_drop_from_nothing():
    told = bias.tallies([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0]])
    assert "relative_drop" not in told and told["drop"].sum_P.tolist() == [-100, -100]


def test_prompts_of_another_length_fall_into_quarters():
    told = bias.tallies([[1, 1, 0, 0, 1, 0, 0, 0], [1, 0.5, 1, 0, 1]])
    assert [told[name].sum_P.tolist() for name in bias.QUARTERS] == [
        [100, 100], [0, 50], [50, 50], [0, 100],
    ]  # fmt: skip
    with pytest.raises(
        ValueError, match="with 2 segments has none in quarter_1 and quarter_3; want 4"
    ):
        bias.tallies([[1, 1, 1, 1], [1, 0]])


class Asked:
    """Says yes to what is red."""

    identity = "asked"

    def ask(self, image, questions):
        self.questions = list(questions)
        return [Answer(0.9 if " red " in f" {q}" else 0.2, "") for q in questions]


LINES = [f"a {a} {n} and a {a} {n}" for of in PAIRS.values() for a, n in of]


def test_a_vqa_judge_is_asked_for_every_segment(tmp_path):
    benchmark, vqa = Positional(), Asked()
    items = benchmark.items(files(tmp_path, LINES))
    assert len(items) == 1_000 and json.loads(json.dumps(items[0].meta))["base"] == 0
    chosen = [i for i in items if sum(s.startswith("red ") for s in i.meta["segments"]) == 1][:8]
    assert len(chosen) == 8
    records = [[benchmark.judge(np.zeros((8, 8, 3), np.uint8), i, Judges(vqa=vqa))] for i in chosen]
    assert vqa.questions[0] == prompts.with_article(chosen[-1].meta["segments"][0]) + "?"
    tallies = benchmark.score(chosen, records, "reference")
    found = scores(tallies.metrics, tallies.averages)
    values = [found[name].value for name in bias.QUARTERS]
    assert sum(values) == pytest.approx(90 + 3 * 20) and found["all_right"].value == 0


def test_a_prompt_is_all_right_by_the_mean_of_its_pictures():
    item = Item("0", "a", "color", {"base": 0, "words": []})
    pictures = [{"segments": of} for of in ([0.9, 0.9, 0.9, 0.4], [0.3, 0.9, 0.9, 0.7])]
    told = Positional().score([item, item], [pictures, pictures[:1]], "reference")
    assert told.metrics["all_right"].sum_P.tolist() == [100, 0]


class Stripes:
    """Says yes to the k-th question as far as the k-th quarter of the picture is white."""

    identity = "stripes"

    def ask(self, image, questions):
        return [Answer(image[0, k, 0] / 255, "") for k in range(len(questions))]


EASE = np.random.default_rng(0).integers(100, 256, (8, 4))  # of the segments of eight sets


def measured(items, samples, out, drops=(0, 0, 0, 0), ease_Bx4=EASE):
    """Results of pictures in which segments are as white as they are easy, less of their place's drop."""
    pictures = [
        (i.text, np.roll(ease_Bx4[i.meta["base"]], -i.meta["rotation"]) - np.array(drops))
        for i in items
    ]
    drawn = samples(
        (text, np.broadcast_to(white_4[None, :, None], (4, 4, 3)).astype(np.uint8))
        for text, white_4 in pictures
    )
    given = {"mode": "reference", "command": "as typed"}
    measuring.measure("positional", items, drawn, Judges(vqa=Stripes()), out, **given)
    return json.loads((out / "results.json").read_text())


@pytest.fixture
def items(tmp_path):
    """The prompts of eight sets, in all rotations."""
    (tmp_path / "words").mkdir()
    return Positional().items(files(tmp_path / "words", LINES))[:32]


def test_the_suite_recovers_a_planted_drop_and_finds_none_where_there_is_none(
    items, samples, tmp_path
):
    planted = measured(items, samples, tmp_path / "planted", (0, 17, 34, 51))  # 51 of 255 are 20%
    found, sure = planted["scores"], planted["ci95"]
    first = 100 * EASE.mean() / 255
    wanted = {"quarter_1": first, "drop": 20, "slope": -20 / 3, "relative_drop": 2000 / first}
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value)
        assert sure[name][0] - 1e-9 <= value <= sure[name][1] + 1e-9
    assert sure["quarter_1"][1] - sure["quarter_1"][0] > 2  # sets differ, and are what is drawn
    assert sure["drop"][1] - sure["drop"][0] < 1e-9
    none = measured(items, samples, tmp_path / "none")
    for name in ("drop", "slope", "relative_drop"):
        assert np.allclose([none["scores"][name], *none["ci95"][name]], 0, atol=1e-9)


def test_which_segment_of_a_set_is_which_changes_nothing(items, samples, tmp_path):
    drops, relabelled = (0, 60, 30, 90), np.random.default_rng(1).permuted(EASE, axis=1)
    one = measured(items, samples, tmp_path / "one", drops)
    two = measured(items, samples, tmp_path / "two", drops, relabelled)
    for told in ("scores", "ci95"):
        for name in one[told].keys() - {"all_right"}:
            assert two[told][name] == pytest.approx(one[told][name]), name


def test_results_say_whose_words_the_prompts_have(items, samples, tmp_path):
    told = measured(items, samples, tmp_path / "out")["notes"]
    wanted = "the prompts use the words of color_train.txt; train files are not checked"
    assert told[0].startswith(wanted)  # eight sets, all of colours
    assert items[-1].meta.keys() == {"segments", "base", "rotation", "words"}


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("color_val.txt", "", "has no prompts, the published one 300"),
        ("shape_val.txt", "a red car and a blue sofa\n" * 300, "is altered: its SHA-256"),
        ("color_val.txt", "\udcff", "color_val.txt is not UTF-8"),
        ("color_train.txt", "\udcff", "color_train.txt is not UTF-8.*published at"),
        ("color_train.txt", "", "color has 0 pairs .*: use T2I-CompBench's complete train and val"),
    ],
)
def test_words_of_another_file_are_refused(tmp_path, name, content, message):
    files(tmp_path, LINES)
    (tmp_path / name).write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(InputError, match=message):
        Positional().items(tmp_path)


def without(results, name, key):
    return results | {key: {n: value for n, value in results[key].items() if n != name}}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda of: of | {"scores": None},
        lambda of: {k: v for k, v in of.items() if k != "ci95"},
        lambda of: without(of, "quarter_1", "scores"),
        lambda of: without(of, "quarter_1", "ci95"),
        *(
            lambda of, value=value: of | {"scores": of["scores"] | {"quarter_1": value}}
            for value in (None, "x", [], 10**400)
        ),
        *(
            lambda of, value=value: of | {"ci95": of["ci95"] | {"quarter_1": value}}
            for value in (None, 1.0, [1.0], [1.0, 2.0, 3.0])
        ),
    ],
)
def test_results_without_a_number_are_not_drawn(items, samples, tmp_path, spoil):
    told = measured(items, samples, tmp_path / "a")
    (tmp_path / "a/results.json").write_text(json.dumps(spoil(told)))
    with pytest.raises(InputError, match="results.json of ltr lacks quarter_1.*; measure again"):
        measuring.side_by_side("positional", {"ltr": tmp_path / "a"}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_results_are_drawn_alone_and_side_by_side_if_alike(items, samples, tmp_path):
    folders = {name: tmp_path / name for name in ("a", "b")}
    for drop, out in enumerate(folders.values()):
        measured(items, samples, out, (0, 0, 0, 9 * drop))
        assert min(Image.open(out / "position.png").size) > 300
    drawn = measuring.side_by_side("positional", folders, tmp_path / "both")
    assert drawn == tmp_path / "both" / "position.png"
    assert drawn.read_bytes() != (folders["a"] / "position.png").read_bytes()
    other = json.loads((folders["b"] / "results.json").read_text())
    others = {"per_prompt": 4, "judges": {"vqa": "x"}, "suite": "dpg", "guidance": 2.0}
    for key, value in others.items():
        (folders["b"] / "results.json").write_text(json.dumps(other | {key: value}))
        with pytest.raises(InputError, match=f"b.results.json: its {key} is .*, want .*compare"):
            measuring.side_by_side("positional", folders, tmp_path / "neither")
    assert not (tmp_path / "neither").exists()


def evaluate(*args):
    """Runs the door as a user does, and returns what it prints."""
    command = [sys.executable, "-m", "lidit_jax.evaluate", "--suite=positional", *args]
    root = pathlib.Path(__file__).parents[2]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def test_the_file_of_prompts_says_what_each_is_made_of(tmp_path):
    path, words = tmp_path / "p.jsonl", files(tmp_path, LINES)
    evaluate(f"--prompts={words}", f"--write_prompts={path}")
    items = Positional().items(words)
    assert [p.text for p in prompt_files.read(path)] == [item.text for item in items]
    for line, item in zip(path.read_text().splitlines(), items, strict=True):
        told = json.loads(line)
        assert (told["id"], told["group"]) == (item.id, item.group)
        assert told["meta"] == json.loads(json.dumps(item.meta))


def test_a_user_draws_several_results_side_by_side(items, samples, tmp_path):
    given = [f"--results={name}={tmp_path / name}" for name in ("a", "b")]
    for name in ("a", "b"):
        measured(items, samples, tmp_path / name)
    assert evaluate(*given, f"--out={tmp_path}") == f"{tmp_path}/position.png\n"
    assert min(Image.open(tmp_path / "position.png").size) > 300


def test_the_plot_is_a_picture_with_a_bar_for_each_quarter(tmp_path):
    found = {name: bias.estimate(*oracle([0, 0, 0, d])) for name, d in (("a", 0.0), ("b", 0.3))}
    plot.plot(tmp_path / "bias.png", found)
    assert min(Image.open(tmp_path / "bias.png").size) > 300


def test_a_single_models_plot_has_room_for_the_legend(tmp_path):
    name = r"$\frac$"  # no formula
    plot.plot(tmp_path / "bias.png", {name: bias.estimate(*oracle([0, 0, 0, 0.3]))})
    picture = np.asarray(Image.open(tmp_path / "bias.png").convert("L"))
    assert (picture[:, [0, -1]] > 250).all()  # nothing is cut off at the sides
