"""The report tells what the records say, each number in its own place; no run is trained here."""

import dataclasses
import json

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from lidit_jax import files
from lidit_jax.ablation import plots, report, running
from lidit_jax.evaluation import figures
from lidit_jax.evaluation.intervals import Score
from tests.ablation.tiny_family import family


@pytest.fixture(scope="module")
def made_up():
    """A family whose model nobody opens, and its prompts."""
    f = family("nowhere")
    return f, running.items(f)


def records(items, right):
    """What is judged of one picture of each item, whose segment k is exact if right(item, k)."""
    of = []
    for item in items:
        exact = [bool(right(item, k)) for k in range(len(item.meta["scene"]["segments"]))]
        segments = [{"shape": e, "colour": e, "texture": e, "size": e, "exact": e} for e in exact]
        verdict = {"segments": segments, "count": True, "place": all(exact)}
        of.append([verdict | {"all_correct": all(exact)}])
    return of


def test_where_only_the_first_thing_is_right_the_first_bar_is_full(made_up):
    _, items = made_up
    found = report._bias([records(items, lambda _, k: k == 0)], items)
    assert [b.value for b in found.bins] == [100, 0, 0, 0]
    assert found.drop.value == 100 and found.slope.value < 0


def test_rotations_are_one_set_to_the_interval(made_up):
    """Three sets of four rotations, one of them right: drawn anew, from none of it to all of it."""
    _, items = made_up
    first = next(i.meta["base"] for i in items if i.group == "four")
    found = report._bias([records(items, lambda i, _: i.meta["base"] == first)], items)
    assert found.bins[0] == Score(pytest.approx(100 / 3), 0, 100)


def test_a_score_is_told_with_its_lower_bound_first():
    assert report._points(Score(0.5, 0.4, 0.6)) == "50.0 (40.0 to 60.0)"
    assert report._points(Score(0.05, -0.1, 0.2), "+") == "+5.0 (-10.0 to +20.0)"


def test_a_claim_is_told_with_the_papers_margin_of_t2i(made_up):
    f, items = made_up
    f = dataclasses.replace(f, paper=f.paper | {"base": (50.0, 77.0)})  # ltr has (54.02, 77.08)
    seeds = {0: records(items, lambda *_: False)}, {0: records(items, lambda *_: True)}
    compared = report.compare(dict(zip(f.runs, seeds)), items, f.unsteady)
    table = report._claims(f, compared)
    assert "| refiner | `ltr > base` | +4.02 | +100.0 (+100.0 to +100.0) |" in table


def test_the_head_tells_the_median_time_in_minutes(made_up, tmp_path):
    f, items = made_up
    done = {}
    for job, seconds in zip(running.jobs(f, 2, tmp_path), (60, 120, 660, 90)):
        files.write_json(job.folder / "done.json", {"seconds": seconds})
        done.setdefault(job.name, []).append(job)
    del done["ltr"][1]
    assert " 2.0 minutes" in report._head(f, done, items)


def test_the_pictures_shown_are_of_their_prompts_and_framed_as_judged(
    made_up, tmp_path, monkeypatch
):
    f, items = made_up
    drawn = []
    monkeypatch.setattr(plots, "learning_curves", lambda *_: None)
    monkeypatch.setattr(plots, "side_by_side", lambda *given: drawn.append(given))
    monkeypatch.setattr(report.bars, "plot", lambda *_: None)
    done = {name: [] for name in f.runs}
    for job in running.jobs(f, 2, tmp_path):
        done[job.name].append(job)
    whole, none = records(items, lambda *_: True), records(items, lambda *_: False)
    of_one = records(items, lambda i, _: i.group == "one")
    judged = {"base": {0: of_one, 1: whole}, "ltr": {0: none, 1: whole}}
    report._draw(done, items, judged, {}, tmp_path)
    ((_, prompts, folders, right),) = drawn
    shown = {file: items[int(file.removesuffix(".png"))] for file in prompts}
    assert [i.group for i in shown.values()] == list(dict.fromkeys(i.group for i in items))
    assert len({i.meta["kind"] for i in shown.values()}) > 1
    assert prompts == {file: i.text for file, i in shown.items()}
    assert folders == {name: of[0].folder / "drawn" for name, of in done.items()}
    first = [file for file, i in shown.items() if i.group == "one"]
    assert right == {"base": first, "ltr": []} and len(first) == 1


@pytest.fixture
def figure(monkeypatch):
    """The figures that would be saved."""
    saved = []
    monkeypatch.setattr(figures, "save", lambda made, _: saved.append(made))
    yield saved
    for made in saved:
        figures.pyplot().close(made)


def test_curves_are_means_over_seeds_and_ratios_are_to_the_first_run(tmp_path, figure):
    losses = {
        "a": {0: (4.0, 2.0), 1: (8.0, 6.0)},
        "b": {0: (2.0, 1.0), 1: (2.0, 3.0), 2: (9.0, 9.0)},
    }
    folders = {run: {seed: tmp_path / run / str(seed) for seed in of} for run, of in losses.items()}
    for run, of in losses.items():
        for seed, each in of.items():
            folders[run][seed].mkdir(parents=True)
            rows = [{"step": k, "loss": loss} for k, loss in enumerate(each, 1)] + [{"step": 3}]
            text = "\n".join(map(json.dumps, rows))
            (folders[run][seed] / "metrics.jsonl").write_text(text)
    plots.learning_curves(tmp_path / "x.png", folders)
    (made,) = figure
    whole, ratio = made.axes
    for axes, wanted in (
        (whole, {"a": [6, 4], "b": [13 / 3, 13 / 3]}),
        (ratio, {"a": [1, 1], "b": [3 / 8, 1 / 2]}),
    ):
        assert {line.get_label() for line in axes.lines} == set(wanted)
        for line in axes.lines:
            np.testing.assert_array_equal(line.get_xdata(), [1, 2])
            np.testing.assert_allclose(line.get_ydata(), wanted[line.get_label()])


def test_what_is_right_has_a_green_frame(tmp_path, figure):
    for value, run in enumerate(("a", "b")):
        (tmp_path / run).mkdir()
        files.write_png(tmp_path / run / "000003.png", np.full((4, 4, 3), 100 * value, np.uint8))
    folders = {run: tmp_path / run for run in "ab"}
    plots.side_by_side(
        tmp_path / "x.png", {"000003.png": "a"}, folders, {"a": ["000003.png"], "b": []}
    )
    (made,) = figure
    (right, wrong) = (axes for axes in made.axes if axes.images)
    assert [axes.images[0].get_array()[0, 0, 0] for axes in (right, wrong)] == [0, 100]
    red, green, blue = to_rgb(right.spines["left"].get_edgecolor())
    assert green > 2 * max(red, blue)
    assert len(set(to_rgb(wrong.spines["left"].get_edgecolor()))) == 1  # grey
