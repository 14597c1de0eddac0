"""Bad records in a run: each event is told once, over a kill too; and the run ends when they are too many."""

import dataclasses
import pathlib
import shutil

import jax
import pytest

from lidit_jax import errors, processes, sharding
from lidit_jax.data import pipeline
from lidit_jax.data.pipeline import Replaced
from lidit_jax.training import loop
from lidit_jax.training.inputs import open_inputs
from lidit_jax.training.telemetry import step_lines
from lidit_jax.training.telemetry.bad_records import BadRecords
from lidit_jax.training.telemetry.ledger import NAME, Ledger


def event(place, row):
    return Replaced(place, row, f"key {row}", row + 1, "has a latent that is not finite")


def lines(workdir):
    return step_lines.read(workdir / NAME)


def test_each_event_is_one_row_whoever_saw_it(tmp_path, monkeypatch):
    """Two processes whose devices share rows saw one event both, and another each."""
    ledger = Ledger(tmp_path, 1)
    ours, theirs = (BadRecords(16, ledger, pathlib.Path("set"), [1, 2, 1]) for _ in range(2))
    for bad, places in ((ours, (0, 1)), (theirs, (1, 2))):
        bad.saw(3, [event(place, 7) for place in places])
        bad.saw(4, [])
    seen = ours._waiting + theirs._waiting
    monkeypatch.setattr(processes, "gathered", lambda values: seen if values else [])
    ours.flush()
    assert [line.pop("used") for line in lines(tmp_path)] == [8, 8, 8]
    assert lines(tmp_path)[0] == {
        "step": 3, "what": "replaced", "row": 7, "key": "key 7", "used": 8,
        "why": "has a latent that is not finite",
    }  # fmt: skip
    assert ours.state() == [(7, "row 7, key 7: has a latent that is not finite")]
    ours.flush()
    assert len(lines(tmp_path)) == 3
    for bad, step in ((ours, 6), (theirs, 5)):
        bad.saw(step, [event(0, step)])
    seen = ours._waiting + theirs._waiting[-1:]
    ours.flush()
    assert [line["step"] for line in lines(tmp_path)] == [3, 3, 3, 5, 6]


def test_a_sample_that_only_one_of_two_processes_could_read_ends_the_run(tmp_path):
    """Their devices share it, and would hold parts of two pictures."""
    bad = BadRecords(16, Ledger(tmp_path, 1), pathlib.Path("set"), [1, 2])
    bad.saw(3, [event(0, 6)])
    bad.flush()
    bad.saw(4, [event(1, 7)])
    with pytest.raises(
        errors.InputError, match="row 7, key 7: .* but another process, whose devices"
    ):
        bad.flush()


def test_as_many_processes_hold_a_sample_as_the_mesh_says():
    assert sharding.holders(sharding.make_mesh((2, 2, 2)), 8).tolist() == [1] * 8


@pytest.mark.parametrize("budget", [0, 2])
def test_the_budget_counts_rows_and_not_how_often_they_came(budget, tmp_path):
    bad = BadRecords(budget, Ledger(tmp_path, 1), pathlib.Path("set"), [1, 1])
    for step in range(1, 9):
        bad.saw(step, [event(0, 5 + step % budget)] if budget else [])
        bad.flush()
    assert len(lines(tmp_path)) == 8 * bool(budget)
    resumed = BadRecords(budget, Ledger(tmp_path, 9), pathlib.Path("set"), [1, 1])
    resumed.set_state(bad.state())
    resumed.saw(9, [event(1, 30)])
    message = (
        rf"^{budget + 1} pictures of set cannot be read, but data.bad_records is {budget} "
        r"\(.*row 30, key 30: has a latent that is not finite\); .*ledger.jsonl has all of them. "
        "`prepare --verify` lists"
    )
    with pytest.raises(errors.InputError, match=message):
        resumed.flush()
    assert lines(tmp_path)[-1]["row"] == 30


def due(config, folder, steps):
    """Returns step, row and the row used of each bad row that is due in the steps of a run."""
    reader = open_inputs(config, folder)[1]
    batches = pipeline.batches(reader, config.train.batch_size)
    found = [(step, r) for step in range(1, steps + 1) for r in next(batches).replaced]
    return [(step, r.row, r.used) for step, r in found]


def told(workdir):
    return [(line["step"], line["row"], line["used"]) for line in lines(workdir)]


@pytest.mark.slow
def test_a_run_goes_on_and_tells_each_over_a_kill_too(config, data, poor, tmp_path):
    """The second half is done again: killed after the ledger was written, and before the checkpoint was."""
    wanted = due(config, poor, 4)
    assert {step > 2 for step, _, _ in wanted} == {False, True}
    run = tmp_path / "run"
    loop.train(config, poor, run)
    assert told(run) == wanted
    keys = open_inputs(config, data)[1]
    assert [line["key"] for line in lines(run)] == [keys.key(row) for _, row, _ in wanted]
    assert all("latents-00001-of-00002.array_record" in line["why"] for line in lines(run))
    shutil.rmtree(run / "checkpoints" / "4")
    loop.train(config, poor, run)
    assert told(run) == wanted
    resumed, rows = tmp_path / "few", {row for _, row, _ in wanted}
    shutil.copytree(run, resumed)
    shutil.rmtree(resumed / "checkpoints" / "4")
    few = dataclasses.replace(config.data, bad_records=len(rows) - 1)
    with pytest.raises(errors.InputError, match=f"^{len(rows)} pictures of .* cannot be read"):
        loop.train(dataclasses.replace(config, data=few), poor, resumed)
    assert [p.name for p in (resumed / "checkpoints").iterdir()] == ["2"]


@pytest.mark.slow
def test_one_is_too_many_where_there_is_no_budget(config, poor, tmp_path):
    none = dataclasses.replace(config, data=dataclasses.replace(config.data, bad_records=0))
    with pytest.raises(errors.InputError, match="data.bad_records is 0"):
        loop.train(none, poor, tmp_path / "run")
    first = due(config, poor, 4)[0][0]
    assert {line["step"] for line in lines(tmp_path / "run")} == {first}


def test_a_sound_run_has_no_ledger_and_one_process_gathers_nothing(workdir):
    assert not (workdir / NAME).exists()
    values = [{"a": 1}]
    assert processes.gathered(values) is values and jax.process_count() == 1
