"""Which checkpoint is used, process 0 says alone; a kill's leftovers are removed when a run opens."""

import dataclasses
import re
import shutil
import threading

import numpy as np
import pytest

from lidit_jax import errors, files
from lidit_jax.processes import Stopped
from lidit_jax.training import checkpoints, loop, opening, preview
from tests import several
from tests.training.checkpoints_test import MESH, PLACE, tiny_state


@pytest.fixture(scope="module")
def two_steps(config, tmp_path_factory):
    """The checkpoints 2 and 4 of a run."""
    folder = tmp_path_factory.mktemp("two")
    with checkpoints.Saver(folder, config.train) as saver:
        for step in (2, 4):
            saver.save(tiny_state(step), PLACE | {"means": {}})
    return folder


def told(run, how):
    """What two processes say who read the last checkpoint, process 1 with a filesystem of its own."""
    port = several.free_port()
    running = (several.start("-c", READERS, run, how, i, port) for i in range(2))
    ends = several.ended(*running, timeout=120)
    assert [e.status for e in ends] == [0, 0], ends
    return [[line for line in e.out.splitlines() if re.match("step|error", line)] for e in ends]


@pytest.mark.slow
def test_processes_that_see_other_checkpoints_use_the_one_that_process_0_sees(two_steps):
    assert told(two_steps, "late") == [["step 4 of [2, 4]: 9.0", "step 4"]] * 2


@pytest.mark.slow
def test_a_checkpoint_that_one_process_never_sees_ends_all(two_steps):
    whole, ema = (
        f"error process 1: process 0 sees {two_steps}/checkpoints/4, but this process does not; start again "
        f"when it does",
    ) * 2
    assert told(two_steps, "never") == [[whole, ema]] * 2


@pytest.mark.slow
def test_two_checkpoints_of_one_name_are_told_apart(two_steps):
    """Each of them whole: one machine still has the files that were there before."""
    error = (
        f"error {two_steps}/checkpoints/4 is not the same checkpoint for process 1 as for process 0; start "
        f"again when all see the same"
    )
    assert told(two_steps, "other") == [[error, error]] * 2


LEFT = (
    ".config.json.0a1b2c3d.tmp", ".begun.json.0a1b2c3d.tmp", ".metrics.jsonl.0a1b2c3d.tmp",
    ".ledger.jsonl.0a1b2c3d.tmp", "heartbeats/.00001.json.0a1b2c3d.tmp",
    "samples/.step-0000004.png.0a1b2c3d.tmp", "checkpoints/5.orbax-checkpoint-tmp",
    "checkpoints/7.orbax-checkpoint-tmp-17/params",
)  # fmt: skip
OTHERS = (
    ".metrics.jsonl.swp", "notes.tmp", ".notes.txt.0a1b2c3d.tmp", "samples/one.png",
    "checkpoints/.step.0a1b2c3d.tmp", "checkpoints/notes.orbax-checkpoint-tmp",
)  # fmt: skip


def test_what_killed_processes_left_is_removed_and_nothing_else(config, data, workdir, tmp_path):
    """Once the folder is this config's run, and only where it is about to be trained."""
    run = shutil.copytree(workdir, tmp_path / "run")
    (tmp_path / "disk").mkdir()
    (run / "checkpoints" / "8.orbax-checkpoint-tmp").symlink_to(tmp_path / "disk")
    before = set(run.rglob("*"))
    for name in (*LEFT, *OTHERS):
        path = run / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if name.startswith("checkpoints/5") else path.write_text("")
    all_of_it = set(run.rglob("*"))
    opening.set_up(config, data, run, write=False)
    with pytest.raises(errors.InputError, match="holds another config's run .seed"):
        opening.set_up(dataclasses.replace(config, seed=7), data, run)
    assert set(run.rglob("*")) == all_of_it
    opening.set_up(config, data, run).close()
    kept = before | {run / name for name in OTHERS} | {run / "heartbeats", run / "lock"}
    assert set(run.rglob("*")) == kept
    assert (tmp_path / "disk").is_dir()


def test_a_config_that_says_the_same_is_not_written_again(config, data, workdir, tmp_path):
    """Others may be reading it at that moment."""
    path = shutil.copytree(workdir, tmp_path / "run") / "config.json"
    before, text = path.stat().st_ino, path.read_text()
    opening.set_up(config, data, path.parent).close()
    assert path.stat().st_ino == before
    train = dataclasses.replace(config.train, log_every=config.train.log_every + 1)
    opening.set_up(dataclasses.replace(config, train=train), data, path.parent).close()
    assert path.stat().st_ino != before and path.read_text() != text


def test_programs_are_kept_once_the_folder_is_the_runs(config, tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(loop.programs, "kept_in", kept.append)
    with pytest.raises(errors.InputError, match="no data set|no finished data set"):
        loop.train(config, tmp_path / "none", tmp_path / "run")
    assert not kept and not (tmp_path / "run").exists()


def test_two_do_not_train_in_one_folder_at_once(
    config, data, workdir, tmp_path, monkeypatch, capsys
):
    run = shutil.copytree(workdir, tmp_path / "run")
    unfinished = run / "checkpoints" / "8.orbax-checkpoint-tmp"
    unfinished.mkdir()
    first = (run / "lock").open("w")
    files.held_alone(first, "trains")
    monkeypatch.setattr(opening, "WAIT", 0.0)
    told = (run / "config.json").read_bytes()
    train = dataclasses.replace(config.train, log_every=config.train.log_every + 1)
    with pytest.raises(errors.InputError, match="another process trains in .* remove .*/run/lock"):
        opening.set_up(dataclasses.replace(config, train=train), data, run)
    assert unfinished.exists() and (run / "config.json").read_bytes() == told
    opening.set_up(config, data, run, write=False).close()  # who only looks is let in
    monkeypatch.setattr(opening, "WAIT", 60.0)
    capsys.readouterr()
    threading.Timer(1.5, first.close).start()  # after it was asked twice
    opening.set_up(config, data, run).close()
    assert capsys.readouterr().out.count("; waiting 60 s for it to end") == 1
    assert not unfinished.exists()


def test_who_waited_for_a_folder_does_not_go_on_with_anothers_run(config, data, tmp_path, monkeypatch):  # fmt: skip
    """Both found it empty when they looked first."""
    run = tmp_path / "run"
    taken = opening._lock

    def meanwhile(folder):
        checkpoints.claim(folder, config)
        return taken(folder)

    monkeypatch.setattr(opening, "_lock", meanwhile)
    run.mkdir()
    with pytest.raises(
        errors.InputError, match="holds another config's run .*seed: 0 there, 7 now"
    ):
        opening.set_up(dataclasses.replace(config, seed=7), data, run)
    monkeypatch.setattr(opening, "_lock", taken)
    told = files.read_json(run / "config.json", "config")
    assert told["seed"] == 0 and files.take_lock((run / "lock").open("w"))


def test_who_wants_more_steps_is_told_the_way(config, data, workdir, tmp_path):
    train = dataclasses.replace(config.train, steps=6)
    with pytest.raises(errors.InputError, match="train.steps: 4 there, 6 now.; give another --workdir, with train.init_from="):  # fmt: skip
        opening.set_up(dataclasses.replace(config, train=train), data, workdir)


def test_micro_batches_that_do_not_divide_are_refused(config, data, tmp_path):
    train = dataclasses.replace(config.train, accumulate=2)
    with pytest.raises(errors.InputError, match="over 8 .* x 2 accumulation steps; use 16"):
        opening.set_up(dataclasses.replace(config, train=train), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_is_the_same_up_to_its_rounding():
    known = {"mean": np.array([1.0, 2.0]), "std": np.array([3.0])}

    def check(**found):
        opening.check_same_data(known, known | found, "set")

    check(mean=known["mean"] * (1 + 1e-6))
    for name, other in (
        ("mean", known["mean"] * (1 + 1e-4)),
        ("mean", np.array([[1.0, 2.0]])),
        ("pooled", np.array([1.0])),
    ):
        with pytest.raises(errors.InputError, match=f"^set is not the data set .* its {name} diff"):
            check(**{name: other})


@pytest.mark.parametrize(("warmup", "told"), [(9, False), (10, True), (11, True)])
def test_a_run_that_only_warms_up_is_told(warmup, told, config, capsys):
    optim = dataclasses.replace(config.optim, warmup_steps=warmup)
    train = dataclasses.replace(config.train, steps=10)
    config = dataclasses.replace(config, optim=optim, train=train)
    opening.describe(tiny_state(), MESH, config)
    out = capsys.readouterr().out
    assert ("still warming up when the run ends" in out) == told and "6 parameters" in out


def test_what_differs_between_llms_is_named(config):
    (encoder,) = config.encoders
    other = dataclasses.replace(
        config, encoders=(dataclasses.replace(encoder, max_prompt_tokens=9),)
    )
    was = encoder.max_prompt_tokens
    assert checkpoints.changes(config, other) == [
        f"encoders.{encoder.name}.max_prompt_tokens: {was} there, 9 now"
    ]
    two = dataclasses.replace(config, encoders=(encoder, dataclasses.replace(encoder, name="b")))
    assert [line.partition(":")[0] for line in checkpoints.changes(config, two)] == ["encoders"]


READERS = """
import pathlib, sys, time
import jax, jax.numpy as jnp
from lidit_jax import errors, processes, sharding
from lidit_jax.processes import Place
from lidit_jax.training import checkpoints, guard, state
from lidit_jax.training.checkpoints import record

run, how, i, port = sys.argv[1:]
processes.use_cpu(1)
processes.start(Place(f"localhost:{port}", 2, int(i)), dict, 60)
mesh = sharding.make_mesh((1, 2, 1))
processes.connect(mesh)
processes.agreeing._NEWS = 1 if how == "never" else 30
listed, is_dir, read, first = pathlib.Path.iterdir, pathlib.Path.is_dir, record.read, []

def seen(path):
    if path.name != "4" or how == "other":
        return True
    first.append(time.monotonic())
    return how == "late" and time.monotonic() - first[0] > 2

def other(folder):
    return read(folder) | {"saved": 7.0}

if i == "1":
    pathlib.Path.iterdir = lambda path: (p for p in listed(path) if p.name != "4" or how == "other")
    pathlib.Path.is_dir = lambda path: seen(path) and is_dir(path)
    record.read = other if how == "other" else read

everywhere = sharding.replicated(mesh)

def like(a):
    return jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere)

kernel = like(jnp.zeros((2, 3)))
part = state.nnx.State({"kernel": state.nnx.Param(kernel)})
seen_so_far = jax.tree.map(like, guard.fresh())
whole = state.TrainState(like(jnp.int32(0)), part, part, state.nnx.State({}), [kernel], seen_so_far)

def last_whole():
    found = checkpoints.last_whole(pathlib.Path(run), whole)
    largest = found.state.params["kernel"][...].addressable_data(0).max()
    return f"step {found.step} of {checkpoints.steps(pathlib.Path(run))}: {largest}"

def ema():
    return f"step {checkpoints.restore_ema(pathlib.Path(run), part, state.nnx.State({}))[0]}"

for one in (last_whole, ema):
    try:
        said = one()
    except errors.Passing as e:
        said = f"error {e}"
    print(said + "\\n", end="")
processes.end()
"""


@pytest.mark.slow
def test_a_preview_at_the_step_of_a_stop_waits_for_the_checkpoint(
    config, data, tmp_path, monkeypatch
):
    """It may take longer than the scheduler waits; but it is not lost."""
    run, there = tmp_path / "run", []
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, preview_every=2))

    class Watched(preview.Preview):
        def grid(self, current):
            there.append(checkpoints.steps(run))
            return super().grid(current)

    monkeypatch.setattr(loop, "Preview", Watched)
    with several.stopped(monkeypatch, question=2), pytest.raises(Stopped, match="at step 2"):
        loop.train(config, data, run)
    assert there == [[2]] and (run / "samples" / "step-0000002.png").exists()
