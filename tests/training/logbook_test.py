"""The logbook of a run that goes on tells what its files have lost."""

import pathlib
import types

import pytest

from lidit_jax import sharding
from lidit_jax.training import logbook
from lidit_jax.training.telemetry import ledger, step_lines
from lidit_jax.training.telemetry.step_lines import StepLines


@pytest.fixture
def resume(config, tmp_path):
    """Resumes from a step whose checkpoint counted so many lines; returns the ledger's rows."""
    of = {"config": config, "workdir": tmp_path, "data": pathlib.Path("data")}
    run = types.SimpleNamespace(**of, mesh=sharding.one_device())

    def begin(done, **lines):
        saved = {"lines": {f"{name}.jsonl": count for name, count in lines.items()}}
        logbook.Logbook(run, None, done, 0.0, saved).close()
        return step_lines.read(tmp_path / ledger.NAME)

    return begin


@pytest.mark.parametrize("name", ["metrics", "ledger"])
def test_lines_that_a_file_has_lost_are_told_once(name, resume, tmp_path, capsys):
    for kept in ("metrics", "ledger"):
        lines = StepLines(tmp_path / f"{kept}.jsonl", 1)
        for step in (1, 2, 3):
            lines.write(step, what="skipped")
        lines.close()
    counts = {"metrics": 2, "ledger": 2}
    assert len(resume(2, **counts)) == 2  # what is said of step 3 is about to be said again
    assert capsys.readouterr().out == ""
    for _ in range(2):
        *before, row = resume(2, **counts | {name: 5})
        assert len(before) == 2 and row["step"] == 2 and row["what"] == "lines"
        assert (row["file"], row["lost"], row["of"]) == (f"{name}.jsonl", 3, 5)
        assert f"{name}.jsonl" in capsys.readouterr().out
