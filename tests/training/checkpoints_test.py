"""What is kept, what is told of it, and where a run may lie."""

import dataclasses
import datetime
import json
import os
import re
import shutil
import types

import jax
import jax.numpy as jnp
import pytest

from lidit_jax import digests, errors, files, sharding
from lidit_jax.training import checkpoints, guard, loop, state, trained
from lidit_jax.training.checkpoints import damage, reading, record
from lidit_jax.training.config import Config, build
from lidit_jax.training.telemetry import ledger
from tests import several

PLACE = {"batches": {"next_index": 7}, "data": {"latent_mean": [0.5]}}


def train_config(config, **train):
    return dataclasses.replace(config.train, **train)


def tiny_state(step=0):
    """A state of one array, which stands for a run's."""
    kernel = jax.device_put(jnp.arange(6.0).reshape(2, 3) + step, sharding.replicated(MESH))
    part = state.nnx.State({"kernel": state.nnx.Param(kernel)})
    number = jax.device_put(jnp.int32(step), sharding.replicated(MESH))
    seen = jax.device_put(guard.fresh(), sharding.replicated(MESH))
    return state.TrainState(number, part, part, state.nnx.State({}), [kernel], seen)


MESH = sharding.make_mesh((1, 8, 1))
HOUR = 3600.0


@pytest.fixture
def clock(monkeypatch):
    """What the records take for the time, in hours."""
    now = [0.0]
    monkeypatch.setattr(record, "time", types.SimpleNamespace(time=lambda: 1e9 + now[0] * HOUR))
    return now


def save(workdir, config, clock, times, losses=None):
    """One process that saves a step at each of these times; returns the steps that are there then."""
    begun = checkpoints.last_step(workdir) or 0
    with checkpoints.Saver(workdir, config) as saver:
        for n, hours in enumerate(times, 1):
            clock[0] = hours
            means = {config.keep_best: losses[n - 1]} if losses else {}
            saver.save(tiny_state(begun + n), PLACE | {"means": means})
    return sorted(int(p.name) for p in (workdir / "checkpoints").iterdir())


def test_what_is_saved_is_read_with_its_place_and_means(config, tmp_path):
    with checkpoints.Saver(tmp_path, config.train) as saver:
        saver.save(tiny_state(3), PLACE | {"means": {"loss": 1.5}})
        saver.save(tiny_state(4), PLACE | {"means": {"loss": 5.0}})
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=a.sharding), tiny_state()
    )
    for step, mean in ((3, 1.5), (4, 5.0)):
        found, told = reading.restore(tmp_path, step, like)
        assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), found, tiny_state(step)))
        assert told["batches"] == PLACE["batches"] and told["data"] == PLACE["data"]
        assert told["means"] == {"loss": mean}


def test_the_last_ones_are_kept(config, clock, tmp_path):
    kept = train_config(config, keep=2)
    assert save(tmp_path, kept, clock, [0, 1, 2, 3]) == [3, 4]


def test_one_in_so_many_hours_is_kept_for_good_through_restarts(
    config, clock, tmp_path, monkeypatch
):
    """Orbax takes its own times for what it saved itself: each process began to save minutes before the end."""
    kept = train_config(config, keep=1, keep_hours=2.0)
    assert save(tmp_path, kept, clock, [0, 1, 2, 3]) == [1, 3, 4]
    for late in (1, 3):  # on disk at another time than it was saved
        path = tmp_path / "checkpoints" / str(late) / "_CHECKPOINT_METADATA"
        told = json.loads(path.read_text())
        path.write_text(json.dumps(told | {"commit_timestamp_nsecs": late * 10**9}))
    assert save(tmp_path, kept, clock, [3.5, 4.0]) == [1, 3, 6]
    assert save(tmp_path, kept, clock, [4.5, 9.0, 9.5]) == [1, 3, 6, 8, 9]
    longer = train_config(config, keep=1, keep_hours=0.0)
    assert save(tmp_path, longer, clock, [10]) == [10]


def test_the_best_is_kept_through_restarts_until_a_better_one_comes(config, clock, tmp_path):
    kept = train_config(config, keep=1, keep_best="loss")
    assert save(tmp_path, kept, clock, [0, 1, 2], [2.0, 1.0, 3.0]) == [2, 3]
    assert save(tmp_path, kept, clock, [3, 4], [1.5, float("nan")]) == [2, 5]
    assert save(tmp_path, kept, clock, [5, 6], [0.5, 0.6]) == [6, 7]


def test_the_best_by_psnr_has_the_greatest(config, clock, tmp_path):
    kept = train_config(config, keep=1, keep_best="held_out_psnr")
    means = [20.0, 21.0, float("nan"), 19.0]
    assert save(tmp_path, kept, clock, range(4), means) == [2, 4]


def test_a_checkpoint_whose_record_is_damaged_is_not_the_best(config, clock, tmp_path):
    kept = train_config(config, keep=1, keep_best="loss")
    assert save(tmp_path, kept, clock, [0, 1], [1.0, 2.0]) == [1, 2]
    (tmp_path / "checkpoints" / "1" / "record" / "metadata").write_text("{")
    assert save(tmp_path, kept, clock, [2], [3.0]) == [2, 3]


def test_one_that_a_kill_has_half_removed_takes_no_place_but_among_the_last(
    config, clock, tmp_path
):
    """Its folder is younger than all that have a record."""
    kept = train_config(config, keep=1, keep_hours=2.0, keep_best="loss")
    assert save(tmp_path, kept, clock, [0, 1, 2], [1.0, 2.0, 3.0]) == [1, 3]
    half = shutil.copytree(tmp_path / "checkpoints" / "1", tmp_path / "checkpoints" / "2")
    shutil.rmtree(half / "record")
    (half / "_CHECKPOINT_METADATA").unlink()
    assert save(tmp_path, kept, clock, [3], [4.0]) == [1, 3, 4]
    shutil.rmtree(tmp_path / "checkpoints" / "4" / "record")
    assert save(tmp_path, dataclasses.replace(kept, keep=2), clock, [3.5], [5.0]) == [1, 3, 4, 5]


def test_a_run_is_its_configs_though_it_is_older_than_a_key(config, workdir, tmp_path):
    told = json.loads((workdir / "config.json").read_text())
    del told["data"]["part"]
    files.write_json(tmp_path / "config.json", told)
    whole = build(Config, files.read_json(workdir / "config.json", ""), "")
    checkpoints.claim(tmp_path, whole, write=False)
    other = dataclasses.replace(
        whole, data=dataclasses.replace(whole.data, hold_out=0.1, part="held_out")
    )
    with pytest.raises(errors.InputError, match="data.part: 'train' there, 'held_out' now"):
        checkpoints.claim(tmp_path, other, write=False)


def test_an_unknown_metric_is_refused_before_anything_is_written(config, data, tmp_path):
    unknown = dataclasses.replace(config, train=train_config(config, keep_best="lost"))
    with pytest.raises(
        errors.InputError, match="in train.keep_best 'lost'; known: loss, grad_norm, learning_rate"
    ):
        loop.train(unknown, data, tmp_path / "new" / "run")
    assert not (tmp_path / "new").exists()


def test_the_steps_wait_for_the_save_before_and_are_told_of_both(config, tmp_path, monkeypatch):
    with checkpoints.Saver(tmp_path, config.train) as saver:
        saver.save(tiny_state(1), PLACE | {"means": {}})
        saver.save(tiny_state(2), PLACE | {"means": {}})
        assert [saved.step for saved in saver.finished()] == [1]
        saver.wait()
        (last,) = saver.finished()
        assert saver.finished() == []
    assert last.step == 2 and 0 < last.waited <= last.took < 60
    assert re.fullmatch(
        r"checkpoint 2: the steps waited [\d.]+ s, on disk after [\d.]+ s", last.line()
    )


@pytest.mark.slow
def test_a_run_tells_how_long_saving_took(config, data, tmp_path, monkeypatch, capsys):
    save, run = checkpoints.Saver.save, tmp_path / "run"

    def save_and_wait(saver, *args):
        save(saver, *args)
        saver.wait()

    monkeypatch.setattr(checkpoints.Saver, "save", save_and_wait)
    loop.train(config, data, run)
    lines = {line["step"]: line for line in map(json.loads, (run / "metrics.jsonl").open())}
    told = [step for step, line in lines.items() if "checkpoint_waited_s" in line]
    assert told == [3]  # of step 2's; the last one's is in TensorBoard
    assert 0 < lines[3]["checkpoint_waited_s"] <= lines[3]["checkpoint_took_s"] < 60
    assert "checkpoint 4: the steps waited" in capsys.readouterr().out


def test_no_step_waits_for_a_compilation_when_it_is_saved(config, data, workdir, tmp_path):
    """Whether a run begins or goes on."""
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))

    def compiled():
        return [name for name in seen if "backend_compile" in name]

    like = state_like(config, data)
    jax.clear_caches()  # as in a process that begins
    found = checkpoints.last_whole(workdir, like)
    assert compiled()  # the listener hears
    with checkpoints.Saver(tmp_path, config.train) as saver:
        saver.rehearse(found.state)
        seen.clear()
        saver.save(found.state, PLACE | {"means": {}})
        assert not compiled()


def test_a_checkpoint_under_another_steps_name_is_none(config, data, workdir, tmp_path):
    """Else its noise would be another step's than its batches."""
    run = shutil.copytree(workdir, tmp_path / "run")
    (run / "checkpoints" / "4").rename(run / "checkpoints" / "6")
    found = checkpoints.last_whole(run, state_like(config, data))
    assert found.step == 2
    assert [(e.folder.name, e.why) for e in found.damaged] == [
        ("6", "it is the checkpoint of step 4")
    ]


@pytest.mark.slow
def test_an_ema_that_is_read_in_parts_is_the_same(workdir, monkeypatch):
    whole = trained.open_to_draw(workdir)
    parts, read = [], reading._read

    def told(*args, **kwargs):
        found = read(*args, **kwargs)
        parts.append(len(jax.tree.leaves(found[1])))
        return found

    monkeypatch.setattr(reading, "_read", told)
    monkeypatch.setattr(reading, "GROUP", 60_000)
    again = trained.open_to_draw(workdir)
    assert len(parts) > 4 and sum(parts) == 64
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), whole.ema, again.ema))
    assert again.identity == whole.identity


# Links.


@pytest.mark.slow
@pytest.mark.parametrize(
    "linked",
    [
        pytest.param("workdir", marks=pytest.mark.slow),
        pytest.param("checkpoints", marks=pytest.mark.slow),
        "step",
    ],
)
def test_a_linked_folder_is_as_good_as_the_folder(linked, config, data, workdir, tmp_path):
    real = shutil.copytree(workdir, tmp_path / "disk" / "run")
    shutil.rmtree(real / "checkpoints" / "4" / "params")
    run = tmp_path / "run"
    match linked:
        case "workdir":
            run.symlink_to(real)
        case "checkpoints":
            shutil.copytree(real, run)
            shutil.rmtree(run / "checkpoints")
            (run / "checkpoints").symlink_to(real / "checkpoints")
        case "step":
            shutil.copytree(real, run)
            for step in ("2", "4"):
                shutil.rmtree(run / "checkpoints" / step)
                (run / "checkpoints" / step).symlink_to(real / "checkpoints" / step)
    again = dataclasses.replace(
        config, train=train_config(config, preview_every=0, keep=9), optim=config.optim
    )
    like = state_like(again, data)
    found = checkpoints.last_whole(run, like)
    assert found.step == 2
    told, to = [], run / "damaged" / "4"
    checkpoints.set_aside(run, found, lambda *what: told.append((*what, found.step)))
    assert told == [(to, found.damaged[0].why, 2)] and (to / "ema").is_dir()
    assert checkpoints.last_step(run) == 2
    with checkpoints.Saver(run, again.train) as saver:
        saver.save(dataclasses.replace(found.state, step=jnp.int32(4)), PLACE | {"means": {}})
    assert checkpoints.last_step(run) == 4
    assert checkpoints.last_whole(run, like).step == 4


def state_like(config, data):
    from lidit_jax.training import optim, tasks

    _, task, *_ = tasks.open_run(config, data)
    optimizer = optim.make_optimizer(config.optim, config.train.steps)
    return state.abstract(task, optimizer, MESH)[1]


# What a folder holds.


def test_a_folder_tells_what_it_holds(config, workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    (run / "damaged").mkdir()
    shutil.copytree(run / "checkpoints" / "2", run / "damaged" / "3")
    (run / "checkpoints" / "5.orbax-checkpoint-tmp").mkdir()
    (run / "checkpoints" / "mine").mkdir()  # which no start removes
    ledger.Ledger(run, 3).row(2, "checkpoint")
    path = run / "checkpoints" / "4" / "record" / "metadata"
    path.write_text(path.read_text().replace('"saved": 1', '"saved": 2'))
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    first, two, arrays, means, four, unfinished, damaged, rows = checkpoints.info(run)
    assert first == f"{run}: task diffusion, 103,248 parameters, step 4 of 4"
    assert re.fullmatch(r"step 2: saved [-\d]+ [:\d]+ [+\d]+, [\d,]+ bytes, files readable", two)
    today = datetime.datetime.now().astimezone()
    assert f"saved {today:%Y-%m}" in two
    assert "params 58 of float32, ema 58 of float32" in arrays
    assert "opt_state 118 of float32 int32" in arrays and "loss 1." in means
    assert re.fullmatch(r"step 4: [\d,]+ bytes, DAMAGED: its record is not what was saved", four)
    assert unfinished.startswith(f"unfinished: {run / 'checkpoints' / '5.orbax-checkpoint-tmp'}, 0")
    assert damaged.startswith(f"damaged, moved aside: {run / 'damaged' / '3'}, ")
    assert rows == f"{run / 'ledger.jsonl'}: 1 checkpoint"
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


def test_what_vanishes_while_it_is_looked_at_is_not_told_of(workdir, tmp_path, monkeypatch):
    """A run that trains renames what it has saved, and removes what it no longer keeps."""
    run = shutil.copytree(workdir, tmp_path / "run")
    unfinished = run / "checkpoints" / "5.orbax-checkpoint-tmp"
    (unfinished / "params").mkdir(parents=True)
    (unfinished / "params" / "data").write_text("written")
    gone, read, size = [], record.read, os.stat

    def removed(folder):
        if folder.name == "2":
            (folder / "record" / "metadata").unlink()
            with pytest.raises(damage.Damaged) as e:
                read(folder)
            shutil.rmtree(folder)
            raise e.value
        return read(folder)

    def renamed(path, *args, **kwargs):
        found = size(path, *args, **kwargs)
        if str(path) == str(unfinished / "params" / "data"):
            gone.append(unfinished.rename(unfinished.parent.parent / "elsewhere"))
        return found

    monkeypatch.setattr(record, "read", removed)
    monkeypatch.setattr(os, "stat", renamed)
    _, *told = checkpoints.info(run)
    assert len(gone) == 1 and len(told) == 3 and told[0].startswith("step 4: saved "), told


def test_no_array_is_read_to_tell_what_a_folder_holds(workdir, monkeypatch):
    def refused(*_):
        raise AssertionError("it is read")

    monkeypatch.setattr(reading, "_alone", refused)
    monkeypatch.setattr(digests, "of_copies", refused)
    assert sum("files readable" in line for line in checkpoints.info(workdir)) == 2


def test_files_that_cannot_be_read_are_told(workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    for path in run.glob("checkpoints/*/*/**/d/*"):
        path.write_bytes(bytes(path.stat().st_size))
    first, *steps = checkpoints.info(run)
    assert "parameters unknown" in first and len(steps) == 2
    assert all("DAMAGED: it cannot be read (DATA_LOSS" in line for line in steps)


def test_the_door_tells_it_without_config_and_data(workdir, tmp_path):
    command = ["-m", "lidit_jax.train", f"--workdir={workdir}", "--checkpoint_info"]
    (end,) = several.ended(several.start(*command))
    assert end.status == 0 and "step 4: saved " in end.out, end
    with pytest.raises(errors.InputError, match="no run's config .is this a run.. at"):
        list(checkpoints.info(tmp_path))
