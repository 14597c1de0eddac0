"""The scenes world's metrics: hand-computed from hand-made verdicts."""

import dataclasses
import json

import numpy as np
import pytest

from lidit_jax.evaluation.benchmarks import measuring
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.benchmarks.scenes import Scenes
from lidit_jax.evaluation.intervals import scores
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.scenes import held_out, rendering
from lidit_jax.scenes.things import Scene, Segment, Thing

BENCHMARK = Scenes()


def item(group, *things, relation="", kind="pairs", count=1):
    scene = Scene(tuple(Segment(t, count) for t in things), relation)
    prompt = held_out.Prompt("", scene, group, kind, "adjectives", 0)
    return Item("0", "", group, dataclasses.asdict(prompt))


def record(*segments, count=True, place=None):
    exact = [all(s.values()) for s in segments]
    told = [{**s, "exact": e} for s, e in zip(segments, exact)]
    correct = count and place is not False and all(exact)
    return [{"segments": told, "count": count, "place": place, "all_correct": correct}]


RED, STRIPED = Thing("circle", "red"), Thing("star", texture="striped")


def test_shares_are_of_the_segments_that_say_it():
    pairs = [
        (item("one", RED), record({"shape": True, "colour": False})),
        (item("two", RED, STRIPED), record({"shape": True, "colour": True}, {"shape": False, "texture": True})),
        (item("counting", RED, count=3), record({"shape": True, "colour": True}, count=False)),
        (item("relation", RED, RED, relation="above"), record({"shape": True, "colour": True}, {"shape": True, "colour": False}, place=True)),
    ]  # fmt: skip
    tallies = BENCHMARK.score(*zip(*pairs), "fixed").metrics
    value = {name: (t.sum_P.sum(), t.count_P.sum()) for name, t in tallies.items()}
    assert value["shape"] == (5, 6) and value["colour"] == (3, 5) and value["texture"] == (1, 1)
    assert "size" not in value
    assert value["binding"] == (1, 2)  # of prompts with several
    assert (
        value["count"] == (3, 4) and value["position"] == (1, 1) and value["all_correct"] == (0, 4)
    )
    assert (
        value["t2i_colour"] == (1, 1)
        and value["t2i_shape"] == (0, 1)
        and value["t2i_texture"] == (1, 1)
    )
    assert value["geneval_single_object"] == (1, 1) and value["geneval_two_object"] == (0, 1)
    assert value["geneval_counting"] == (0, 1) and value["geneval_colors"] == (0, 1)
    assert value["geneval_position"] == (1, 1) and value["geneval_color_attr"] == (0, 1)
    wrong = [(item("one", RED), record({"shape": False, "colour": True}))]
    assert BENCHMARK.score(*zip(*wrong), "fixed").metrics["geneval_colors"].sum_P.sum() == 0


def test_segments_are_told_by_position_in_prompts_of_four():
    things = [Thing(s, "red") for s in ("circle", "star", "heart", "cross")]
    right = {"shape": True, "colour": True}
    pairs = [
        (item("four", *things), record(right, right, right, {"shape": True, "colour": False})),
        (item("four", *things), record(right, {"shape": False, "colour": True}, right, right)),
    ]
    tallies = BENCHMARK.score(*zip(*pairs), "fixed").metrics
    shares = [
        tallies[f"segment_{k}"].sum_P.sum() / tallies[f"segment_{k}"].count_P.sum()
        for k in (1, 2, 3, 4)
    ]
    assert shares == [1.0, 0.5, 1.0, 0.5]
    assert tallies["binding"].sum_P.sum() == 6 and tallies["t2i_colour"].sum_P.sum() == 1


def test_new_pairs_triples_and_phrasings_are_told_apart():
    right, wrong = record({"shape": True}), record({"shape": False})
    pairs = [
        (item("one", RED, kind="pairs"), right),
        (item("one", RED, kind="triples"), right),
        (item("one", RED, kind="triples"), wrong),
        (item("one", RED, kind="phrasings"), wrong),
    ]
    tallies = BENCHMARK.score(*zip(*pairs), "fixed").metrics
    values = [tallies[k].sum_P.sum() / tallies[k].count_P.sum() for k in held_out.KINDS]
    assert values == [1.0, 0.5, 0.0]


@pytest.mark.parametrize("shift", [0, held_out.BLOCK_SIZE])
def test_true_pictures_score_one_and_another_prompts_pictures_little(shift):
    items = BENCHMARK.items(count=96)
    pictures = [
        rendering.render(
            Scene.from_json(items[(k + shift) % 96].meta["scene"]), 48, np.random.default_rng(k)
        )
        for k in range(96)
    ]
    records = [[BENCHMARK.judge(p, i, Judges())] for p, i in zip(pictures, items)]
    tallies = BENCHMARK.score(items, records, "fixed")
    values = {
        k: v.value
        for k, v in scores(tallies.metrics, tallies.averages, [i.group for i in items]).items()
    }
    assert {"t2i_avg", "geneval", "segment_4"} <= values.keys()
    if shift:
        assert values["all_correct"] < 0.1 and values["binding"] < 0.5
    else:
        assert set(values.values()) == {1.0}


def test_pictures_become_results_with_intervals(samples, tmp_path):
    """Every third picture is of another prompt's scene."""
    items = BENCHMARK.items(None)
    shown = [items[(k + 32 * (k % 3 == 0)) % len(items)] for k in range(len(items))]
    drawn = samples(
        (
            item.text,
            rendering.render(Scene.from_json(s.meta["scene"]), 48, np.random.default_rng(k)),
        )
        for k, (item, s) in enumerate(zip(items, shown))
    )
    text = measuring.measure(
        "scenes", items, drawn, Judges(), tmp_path / "out", mode="fixed", command="x"
    )
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    low, high = found["ci95"]["all_correct"]
    assert 66 < found["scores"]["all_correct"] < 70 and 60 < low < 66 and 68 < high < 75
    assert {"t2i_avg", "geneval", "segment_4"} <= found["scores"].keys()
    assert text.startswith("| scenes, fixed | ours |") and text.endswith("|\n")
