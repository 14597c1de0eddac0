"""results.json is whole or absent; the tables show every score."""

import json

import pytest

from lidit_jax.evaluation.benchmarks import comparability
from lidit_jax.evaluation.results import comparison, table, write_results

SCORES = {"top1": 0.9731, "top5": 1.0}
MASK2FORMER = "Mask2FormerForUniversalSegmentation:0123456789abcdef"


def test_results_are_on_disk_as_returned(tmp_path):
    results = write_results(tmp_path / "new", "recall", 64, SCORES, "python -m x --a=中")
    on_disk = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    wanted = {"suite": "recall", "n_images": 64, "scores": SCORES, "command": "python -m x --a=中"}
    assert "中" in (tmp_path / "new" / "results.json").read_text(encoding="utf-8")  # to be read
    assert results == on_disk == wanted
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["results.json"]


def test_what_decided_the_scores_is_told_with_them(tmp_path):
    results = write_results(
        tmp_path, "geneval", 8, SCORES, "x", mode="fixed", ci95={"top1": [0, 1]}
    )
    on_disk = json.loads((tmp_path / "results.json").read_text())
    assert results == on_disk
    assert (on_disk["mode"], on_disk["ci95"], on_disk["scores"]) == (
        "fixed",
        {"top1": [0, 1]},
        SCORES,
    )


def test_a_failed_write_leaves_the_old_results(tmp_path, monkeypatch):
    write_results(tmp_path, "recall", 64, SCORES, "one")
    with pytest.raises(ValueError):
        write_results(tmp_path, "recall", 64, {"top1": float("nan")}, "two")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError):
        write_results(tmp_path, "recall", 64, SCORES, "three")
    assert json.loads((tmp_path / "results.json").read_text())["command"] == "one"


def test_table_lines_up():
    results = {"suite": "recall", "n_images": 64, "scores": SCORES, "notes": ["of tiny"]}
    assert table(results).split("\n") == [
        "suite   images  score  value",
        "recall  64      top1   0.9731",
        "recall  64      top5   1.0000",
        "of tiny",
    ]


def test_a_comparison_stands_beside_the_paper_and_says_why_it_does_not_compare():
    results = {
        "suite": "geneval",
        "mode": "reference",
        "scores": {"counting": 0.4812, "prompts_any": 0.7},
        "ci95": {"counting": [0.4401, 0.5249], "prompts_any": [0.6, 0.8]},
        "notes": ["GenEval-HF: another detector", "1 picture of each prompt"],
    }
    paper = {"LI-DiT-1B": {"counting": 0.48}, "LI-DiT-10B": {"counting": 0.65}, "SD v2": {}}
    assert comparison(results, paper).split("\n") == [
        "| geneval, reference | ours | LI-DiT-1B | LI-DiT-10B |",
        "| --- | ---: | ---: | ---: |",
        "| counting | 0.48 (0.44 to 0.52) | 0.48 | 0.65 |",
        "| prompts_any | 0.70 (0.60 to 0.80) |  |  |",
        "",
        "- GenEval-HF: another detector",
        "- 1 picture of each prompt",
        "",
    ]


def test_a_comparison_with_nothing_of_the_papers_has_no_columns_for_it():
    results = {
        "suite": "s",
        "mode": "fixed",
        "scores": {"a": 1.0},
        "ci95": {"a": [0.0, 2.0]},
        "notes": ["x"],
    }
    head, *_, row, _, note, _ = comparison(results, {}).split("\n")
    assert (head, row, note) == ("| s, fixed | ours |", "| a | 1.00 (0.00 to 2.00) |", "- x")


def test_notes_tell_another_judge_random_weights_and_fewer_pictures():
    judges = {"detector": MASK2FORMER, "clip": "CLIPModel:0123456789abcdef"}
    (alone,) = comparability.notes("geneval", judges, tiny=False, per_prompt=4, published=4)
    assert alone.startswith("GenEval-HF: ") and "do not compare" in alone
    _, tiny, fewer = comparability.notes("geneval", judges, tiny=True, per_prompt=1, published=4)
    assert "mean nothing" in tiny
    assert fewer == "pictures of each prompt: 1, where 4 are published"
    assert comparability.notes("geneval", {"detector": "Other:0"}, False, 4, 4) == []
    (chunker,) = comparability.notes("compbench", {}, False, 10, 10, {"rule"})
    assert chunker.startswith("chunker=rule: ")
