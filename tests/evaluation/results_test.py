"""results.json is whole or absent; the table shows every score."""

import json

import pytest

from lidit_jax.evaluation.results import table, write_results

SCORES = {"top1": 0.9731, "top5": 1.0}


def test_results_are_on_disk_as_returned(tmp_path):
    results = write_results(tmp_path / "new", "recall", 64, SCORES, "python -m x --a=中")
    on_disk = json.loads((tmp_path / "new" / "results.json").read_text(encoding="utf-8"))
    wanted = {"suite": "recall", "n": 64, "scores": SCORES, "command": "python -m x --a=中"}
    assert "中" in (tmp_path / "new" / "results.json").read_text(encoding="utf-8")  # to be read
    assert results == on_disk == wanted
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["results.json"]


def test_a_failed_write_leaves_the_old_results(tmp_path, monkeypatch):
    write_results(tmp_path, "recall", 64, SCORES, "one")
    with pytest.raises(ValueError):
        write_results(tmp_path, "recall", 64, {"top1": float("nan")}, "two")
    monkeypatch.setattr("pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    with pytest.raises(OSError):
        write_results(tmp_path, "recall", 64, SCORES, "three")
    assert json.loads((tmp_path / "results.json").read_text())["command"] == "one"


def test_table_lines_up():
    results = [
        {"suite": "recall", "n": 64, "scores": SCORES},
        {"suite": "shapes", "n": 1000, "scores": {"all_correct": 0.5}},
    ]
    assert table(results).split("\n") == [
        "suite   n     score        value",
        "recall  64    top1         0.9731",
        "recall  64    top5         1.0000",
        "shapes  1000  all_correct  0.5000",
    ]
