"""A checkpoint that a disk has damaged is told in one line, whoever wants it; training goes on before it."""

import dataclasses
import hashlib
import random
import shutil
import time

import jax
import numpy as np
import pytest

from lidit_jax import errors, files, generation
from lidit_jax.training import checkpoints, loop, trained
from lidit_jax.training.checkpoints import damage, reading
from lidit_jax.training.telemetry import ledger, step_lines
from tests import several
from tests.same_run import arrays
from tests.tiny_prepared import flip


def slow(value):
    return pytest.param(value, marks=pytest.mark.slow)


@pytest.fixture
def copy(workdir, tmp_path):
    """A run of two checkpoints, of steps 2 and 4, of its own."""
    return shutil.copytree(workdir, tmp_path / "run")


@pytest.fixture
def further(config):
    """The config that goes on where that run ended."""
    return with_train(config, steps=5, log_every=5, preview_every=0)


def with_train(config, **train):
    constant = dataclasses.replace(config.optim, decay="constant")
    return dataclasses.replace(
        config, train=dataclasses.replace(config.train, **train), optim=constant
    )


def constant_run(run):
    """Makes the number of steps no part of a run."""
    path = run / "config.json"
    saved = files.read_json(path, "config")
    saved["optim"]["decay"] = "constant"
    files.write_json(path, saved)


def test_a_damaged_checkpoint_is_named_with_what_to_do(config, data, copy):
    shutil.rmtree(copy / "checkpoints" / "4" / "ema")
    with pytest.raises(errors.InputError, match="4 is damaged: .*; remove it to use step 2"):
        generation.Generator(copy)
    shutil.rmtree(copy / "checkpoints" / "4")
    shutil.rmtree(copy / "checkpoints" / "2" / "opt_state")
    with pytest.raises(errors.InputError, match="2 is damaged: .*; remove it to train again"):
        loop.train(config, data, copy)
    assert (copy / "checkpoints" / "2").is_dir() and not (copy / "damaged").exists()


@pytest.mark.parametrize(
    "text",
    [
        "ABORTED: Error reading params/d/ab: [OS error 116: ESTALE Stale file handle]",
        "FAILED_PRECONDITION: Error opening it: Transport endpoint is not connected",
        "Error reading it: Connection timed out",
        "UNAVAILABLE: try again",
    ],
)
def test_a_filesystem_that_does_not_answer_damages_nothing(text, copy):
    """TensorStore tells its errors in words alone."""
    checkpoint = copy / "checkpoints" / "4"
    with pytest.raises(ValueError, match=text[:20]) as found, damage.blamed(checkpoint):
        raise ValueError(text)
    assert not isinstance(found.value, damage.Damaged)
    with pytest.raises(damage.Damaged), damage.blamed(checkpoint):
        raise ValueError("DATA_LOSS: it does not decompress")


def zero(checkpoint):
    for file in checkpoint.glob("*/**/d/*"):
        file.write_bytes(bytes(file.stat().st_size))


def garble(checkpoint):
    for item in ("params", "ema"):
        (checkpoint / item / "_METADATA").write_text("{")


def reword(checkpoint):
    """One digit of the place in the data, which is JSON still."""
    path = checkpoint / "record" / "metadata"
    text = path.read_text()
    path.write_text(text.replace('"next_index": 2', '"next_index": 3'))
    assert text != path.read_text()


def exchange(checkpoint):
    """Another run's parameters, whole and finite; or this one's at another step."""
    for item in ("params", "ema"):
        shutil.rmtree(checkpoint / item)
        shutil.copytree(checkpoint.parent.parent / "other" / item, checkpoint / item)


@pytest.mark.parametrize("damaged", [zero, slow(garble), slow(reword), slow(exchange)])
def test_what_a_disk_has_lost_is_told_whoever_wants_it(damaged, config, data, copy, tmp_path):
    (copy / "checkpoints" / "4").rename(copy / "other")
    damaged(copy / "checkpoints" / "2")
    after = dataclasses.replace(config.train, init_from=str(copy))
    for wanted in (
        lambda: loop.train(config, data, copy),
        lambda: generation.Generator(copy),
        lambda: loop.train(dataclasses.replace(config, train=after), data, tmp_path / "second"),
    ):
        with pytest.raises(errors.InputError, match="2 is damaged: .*; remove it to train again"):
            wanted()
    assert not (copy / "damaged").exists()


def test_the_array_that_differs_is_named(copy, monkeypatch):
    """As if the disk had another bit in it, and no checksum of its own."""
    put = reading._alone
    folder = copy / "checkpoints" / "4"

    class Bent:
        def __init__(self, manager):
            self.manager = manager

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.manager.close()

        def restore(self, *args, **kwargs):
            found = dict(self.manager.restore(*args, **kwargs).items())
            kernel = found["ema"]["dit"]["time"]["up"]["kernel"]
            bits = np.array(kernel).view(np.uint32)
            bits[-1, -1] ^= 1
            bent = jax.device_put(bits.view(np.float32), kernel.sharding)
            found["ema"]["dit"]["time"]["up"]["kernel"] = bent
            return found

    monkeypatch.setattr(reading, "_alone", lambda path: Bent(put(path)))
    with pytest.raises(
        damage.Damaged, match="4 is damaged: ema dit.time.up.kernel is not what was saved; remove"
    ) as e:
        trained.open_to_draw(copy)
    assert e.value.folder == folder


@pytest.mark.slow
def test_no_flipped_byte_in_a_checkpoint_goes_unseen(copy):
    """One in each kind of file: it is named, or what is read is the same to the last bit."""
    folder, rng = copy / "checkpoints" / "4", random.Random(0)
    shutil.rmtree(copy / "checkpoints" / "2")

    def read():
        found = trained.open_to_draw(copy)
        flat = jax.tree.leaves((found.ema, found.constants))
        return hashlib.sha256(b"".join(np.asarray(a).tobytes() for a in flat)).hexdigest(), found

    (wanted, _), named = read(), []
    files = [*folder.glob("ema/**/d/*"), *folder.glob("ema/**/*.ocdbt"), folder / "record/metadata"]
    files += [folder / "_CHECKPOINT_METADATA", folder / "ema/_METADATA", folder / "ema/_sharding"]
    for path in (*rng.sample(files[:-6], 6), *files[-6:]):
        whole = path.read_bytes()
        flip(path, rng.randrange(len(whole)))
        try:
            assert read()[0] == wanted, path
        except damage.Damaged as e:
            assert str(e).startswith(f"checkpoint {folder} is damaged: "), e
            named.append(path)
        path.write_bytes(whole)
    # Orbax names its files at random, so that which of the others are read differs from run to run.
    assert folder / "record/metadata" in named


@pytest.mark.slow
@pytest.mark.parametrize("lost", [slow("garbled"), "missing"])
def test_orbax_own_metadata_is_wanted_by_none(lost, further, data, copy):
    path = copy / "checkpoints" / "4" / "_CHECKPOINT_METADATA"
    identity = trained.open_to_draw(copy).identity
    path.write_text("{") if lost == "garbled" else path.unlink()
    assert trained.open_to_draw(copy).identity == identity
    constant_run(copy)
    loop.train(further, data, copy)
    assert checkpoints.last_step(copy) == 5 and not (copy / "damaged").exists()


@pytest.mark.slow
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(
    further, data, copy, tmp_path, capsys
):
    constant_run(copy)
    whole = shutil.copytree(copy, tmp_path / "whole")
    shutil.rmtree(whole / "checkpoints" / "4")
    for path in (copy / "checkpoints" / "4" / "opt_state").glob("**/d/*"):
        flip(path, path.stat().st_size // 2)
    (copy / "damaged" / "4").mkdir(parents=True)  # of an earlier time
    before = path.read_bytes()
    loop.train(further, data, copy)
    told = capsys.readouterr().out
    moved = copy / "damaged" / "4-2"
    assert f"; moved to {moved}; step 2 is used instead" in told and "at step 2" in told
    assert (moved / path.relative_to(copy / "checkpoints" / "4")).read_bytes() == before
    (row,) = step_lines.read(copy / ledger.NAME)
    assert (row["step"], row["what"], row["folder"]) == (2, "checkpoint", str(moved))
    assert row["why"] and row["why"] in told
    loop.train(further, data, whole)
    found, wanted = arrays(copy, 5), arrays(whole, 5)
    assert not [k for k in wanted if not np.array_equal(found[k], wanted[k])]
    # It is told once.
    loop.train(with_train(further, steps=6), data, copy)
    assert "moved" not in capsys.readouterr().out
    assert len(step_lines.read(copy / ledger.NAME)) == 1


def test_nothing_is_moved_where_all_is_unreadable(further, data, copy):
    constant_run(copy)
    for step in ("2", "4"):
        shutil.rmtree(copy / "checkpoints" / step / "params")
    with pytest.raises(errors.InputError, match="no checkpoint in .* can be used .4: .*; 2: "):
        loop.train(further, data, copy)
    assert checkpoints.last_step(copy) == 4 and not (copy / "damaged").exists()


def test_nothing_is_moved_for_other_data(further, data, copy, tmp_path):
    """The damaged one is moved once its predecessor was found to be this data set's."""
    constant_run(copy)
    shutil.rmtree(copy / "checkpoints" / "4" / "params")
    other = shutil.copytree(data, tmp_path / "data")
    path = other / "features" / further.encoders[0].store / "encoder.json"
    info = files.read_json(path, "features")
    files.write_json(path, info | {"std": [2 * x for x in info["std"]]})
    with pytest.raises(errors.InputError, match="is not the data set that the run was trained on"):
        loop.train(further, other, copy)
    assert checkpoints.last_step(copy) == 4


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
        slow(MemoryError()),
        KeyboardInterrupt(),
        PermissionError(13, "Permission denied", "there"),
        ValueError("PERMISSION_DENIED: Error opening file"),
        OSError(116, "Stale file handle", "there"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_what_is_not_the_files_fault_moves_nothing(error, further, data, copy, monkeypatch):
    def fails(folder):
        raise error

    constant_run(copy)
    monkeypatch.setattr(reading, "_alone", fails)
    with pytest.raises(type(error)):
        loop.train(further, data, copy)
    assert checkpoints.last_step(copy) == 4 and not (copy / "damaged").exists()


@pytest.mark.slow
def test_one_that_is_readable_again_is_used(further, data, copy, monkeypatch):
    constant_run(copy)
    times, put = [], reading._alone

    def once(folder):
        times.append(folder)
        if len(times) == 1:
            raise OSError(5, "Input/output error")
        return put(folder)

    monkeypatch.setattr(reading, "_alone", once)
    loop.train(further, data, copy)
    assert len(times) == 2 and not (copy / "damaged").exists()
    assert sorted(p.name for p in (copy / "checkpoints").iterdir()) == ["2", "4", "5"]


@pytest.mark.slow
def test_what_one_of_two_processes_cannot_read_both_move_aside(llms, data, tmp_path):
    """Process 1 alone finds its part of a checkpoint damaged; then both find all of it so; then neither."""
    config, run = several.write_config(tmp_path, llms), tmp_path / "run"
    ends = several.train(2, 2, config, data, run)
    assert [e.status for e in ends] == [0, 0], ends
    shutil.copytree(run, tmp_path / "whole")
    port = several.free_port()
    command = ["-c", ONE_FAILS, config, data, run]
    begun = time.monotonic()
    ends = several.ended(*(several.start(*command, i, port) for i in range(2)), timeout=300)
    assert [e.status for e in ends] == [0, 0], ends
    assert time.monotonic() - begun < 200
    assert (
        f"damaged: process 1: it cannot be read (bad sector); moved to {run}/damaged/4"
        in ends[0].out
    )
    assert "moved" not in ends[1].out
    assert sorted(p.name for p in (run / "checkpoints").iterdir()) == ["2", "5"]
    (row,) = step_lines.read(run / ledger.NAME)
    assert row["step"] == 2 and row["why"] == "process 1: it cannot be read (bad sector)"
    # Now with files that are so.
    for path in (run / "checkpoints" / "5").glob("params/**/d/*"):
        flip(path, path.stat().st_size // 2)
    ends = several.train(2, 2, config, data, run, "--config.train.steps=6")
    assert [e.status for e in ends] == [0, 0], ends
    assert f"moved to {run}/damaged/5; step 2 is used instead" in ends[0].out
    shutil.rmtree(run / "checkpoints" / "6" / "params")
    for step in ("2", "4"):
        shutil.rmtree(run / "checkpoints" / step / "record")
    ends = several.train(2, 2, config, data, run, "--config.train.steps=7")
    assert [e.status for e in ends] == [2, 2], ends
    assert all(
        "no checkpoint in" in e.error and "all are left as they are" in e.error for e in ends
    )


ONE_FAILS = """
import importlib.util, pathlib, sys
from lidit_jax import processes
from lidit_jax.processes import Place
from lidit_jax.training import loop
from lidit_jax.training.checkpoints import reading
from lidit_jax.training.config import parse

config, data, run, i, port = sys.argv[1:]
spec = importlib.util.spec_from_file_location("several_config", config)
spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
c = module.get_config()
c.train.steps, c.train.save_every, c.train.mesh = 5, 5, (1, 2, 2)
processes.use_cpu(2)
processes.start(Place(f"localhost:{port}", 2, int(i)), dict, 60)
put = reading._alone

def fails(folder):
    manager = put(folder)
    if i == "1":
        restore = manager.restore
        def bad(step, args):
            if step == 4:
                raise Exception("bad sector")
            return restore(step, args=args)
        manager.restore = bad
    return manager

reading._alone = fails
loop.train(parse(c), pathlib.Path(data), pathlib.Path(run))
processes.end()
"""
