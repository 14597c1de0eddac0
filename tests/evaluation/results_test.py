"""results.json is whole or absent; the tables show every score."""

import json
import math

import pytest

from lidit_jax.errors import InputError
from lidit_jax.evaluation import results
from lidit_jax.evaluation.benchmarks import comparability
from lidit_jax.evaluation.results import comparison, table, write_results

SCORES = {"top1": 0.9731, "top5": 1.0}
SWIN_S = "Mask2FormerForUniversalSegmentation swin 96/2-2-18-2:0123456789abcdef"
SWIN_L = SWIN_S.replace("96", "192")


def test_results_are_on_disk_as_returned(tmp_path):
    results = write_results(tmp_path / "new", "recall", 64, SCORES, "python -m x --a=中")
    on_disk = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    wanted = {"suite": "recall", "n_images": 64, "scores": SCORES, "command": "python -m x --a=中"}
    assert "中" in (tmp_path / "new" / "results.json").read_text(encoding="utf-8")  # to be read
    assert results == on_disk == wanted
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["results.json"]


def test_a_score_that_is_no_number_is_named(tmp_path):
    with pytest.raises(ValueError, match="suite recall gave top5 the score nan"):
        write_results(tmp_path / "new", "recall", 64, {"top1": 1.0, "top5": math.nan}, "x")
    assert not (tmp_path / "new").exists()


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


PAPER = {"LI-DiT-1B": {"spatial": 27.57, "color": 74.08, "t2i_avg": 67.67}}


@pytest.mark.parametrize(
    ("suite", "judge", "tiny", "told", "left"),
    [
        ("geneval", SWIN_S, False, ["GenEval-HF: "], ["spatial", "color", "t2i_avg"]),
        ("geneval", SWIN_L, False, ["GenEval-HF: ", "the Mask2FormerFor"], []),
        ("geneval", "Owlv2ForObjectDetection 768/32/224:0", False, ["GenEval-OWLv2: "], []),
        ("compbench", "Owlv2ForObjectDetection 768/32/224:0", False, ["spatial-OV"], ["color", "t2i_avg"]),
        ("compbench", "ViltForQuestionAnswering:0", False, ["ViLT answers"], ["spatial"]),
        ("compbench", "BlipForQuestionAnswering 768/16/384:0", False, [], ["spatial", "color", "t2i_avg"]),
        ("compbench", "BlipForQuestionAnswering 1024/16/384:0", False, ["the BlipFor"], ["spatial"]),
        ("geneval", "CLIPModel 1024/14/224:0", False, [], ["spatial", "color", "t2i_avg"]),
        ("geneval", "CLIPModel 1024/14/336:0", False, ["the CLIPModel has size 1024/14/336, "], ["spatial", "color", "t2i_avg"]),
        ("geneval", "CLIPModel 768/32/224:0", False, ["the CLIPModel has size 768/32/224, "], ["spatial", "color", "t2i_avg"]),
        ("dpg", "BlipForQuestionAnswering 768/16/384:0", False, ["DPG-blip: "], []),
        ("compbench", "BlipForQuestionAnswering 16/8:0", True, [comparability.RANDOM], []),
        ("geneval", "Other:0", False, [], ["spatial", "color", "t2i_avg"]),
    ],
)  # fmt: skip
def test_a_judge_that_is_not_the_published_one_is_told_and_the_papers_numbers_left_out(
    suite, judge, tiny, told, left
):
    differ = comparability.judge_differences(suite, [judge], tiny)
    assert len(differ) == len(told)
    assert all(line.startswith(start) for line, start in zip(differ, told))
    assert list(comparability.comparable(PAPER, differ)["LI-DiT-1B"]) == left


def test_notes_tell_judges_chunkers_and_fewer_pictures():
    differ, chunker, fewer = comparability.notes({"x": ()}, 1, 4, {"rule"})
    assert differ == "x" and chunker.startswith("chunker=rule: ")
    assert fewer == "pictures per prompt: 1, not 4 as published"
    assert comparability.notes({}, 4, 4) == []
    (alike,) = comparability.notes({}, 4, 4, alike=["position", "counting"])
    assert alike.startswith(
        "position, counting: the same in all resamples of prompts, so that there is no"
    )


def test_results_of_another_suite_are_not_overwritten(tmp_path):
    results.check_place("fid", tmp_path)
    results.write_results(tmp_path, "fid", 3, {"fid": 1.0}, "command")
    results.check_place("fid", tmp_path)
    with pytest.raises(InputError, match="holds the results of fid; use another folder"):
        results.check_place("clip_score", tmp_path)
