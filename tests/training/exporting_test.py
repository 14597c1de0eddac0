"""An export draws what its run draws, and other runs begin from it; it has no more than that takes."""

import dataclasses
import errno
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from lidit_jax import errors, files, sharding
from lidit_jax.generation import Generator
from lidit_jax.training import checkpoints, handover, loop, optim, state
from lidit_jax.training.inputs import open_inputs
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests.tiny_prepared import flip


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "model"
    assert checkpoints.export(workdir, folder) == 4
    return folder


def test_an_export_draws_the_same_pictures_and_is_the_same_run(workdir, exported):
    run, copy = Generator(workdir), Generator(exported)
    assert (run.step, run.identity) == (copy.step, copy.identity)
    prompts, seeds = ["a red circle", ""], [3, 4]
    np.testing.assert_array_equal(run(prompts, seeds), copy(prompts, seeds))


def test_an_export_is_the_ema_and_the_constants_alone(workdir, exported):
    def size(folder):
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    folder = exported / "checkpoints" / "4"
    assert {p.name for p in folder.iterdir() if p.is_dir()} == {"ema", "constants", "record"}
    assert {p.name for p in exported.iterdir()} == {"config.json", "checkpoints"}
    assert size(exported) < 0.4 * size(workdir / "checkpoints" / "4")
    told = " ".join(checkpoints.info(exported))
    assert "arrays: ema" in told and "params" not in told and "DAMAGED" not in told


def begun(config, data, source, workdir, **train):
    """Returns the first state of a run that begins from `source`."""
    train = dataclasses.replace(config.train, init_from=str(source), **train)
    config, reader, constants = open_inputs(dataclasses.replace(config, train=train), data)
    task = diffusion_task(config, tuple(reader.lengths))
    optimizer = optim.make_optimizer(config.optim, config.train.steps)
    _, like = state.abstract(task, optimizer, sharding.make_mesh((1, 8, 1)))
    chosen = handover.check(config, workdir, like, constants)
    return handover.begin(config, workdir, chosen, optimizer, like)


def test_a_run_begins_from_an_export_with_the_ema_as_its_weights(
    config, data, workdir, exported, tmp_path
):
    of_run, of_export = (begun(config, data, s, tmp_path) for s in (workdir, exported))
    for part in ("params", "ema", "constants"):
        wanted = of_run.constants if part == "constants" else of_run.ema
        jax.tree.map(np.testing.assert_array_equal, getattr(of_export, part), wanted)
    pairs = zip(jax.tree.leaves(of_export.params), jax.tree.leaves(of_export.ema), strict=True)
    assert not any(a is b for a, b in pairs)  # each is donated to the first step
    differ = jax.tree.map(lambda a, b: bool((a != b).any()), of_run.params, of_run.ema)
    assert any(jax.tree.leaves(differ))
    with pytest.raises(
        errors.InputError, match="is an export, which has no optimizer; give the run"
    ):
        begun(config, data, exported, tmp_path, init_optimizer=True)


def test_an_export_is_trained_in_another_folder_alone(config, data, exported, tmp_path):
    copy = shutil.copytree(exported, tmp_path / "copy")
    constant = dataclasses.replace(config.optim, decay="constant")
    train = dataclasses.replace(config.train, steps=6)
    longer = dataclasses.replace(config, train=train, optim=constant)
    saved = files.read_json(copy / "config.json", "config")
    saved["optim"]["decay"] = "constant"
    files.write_json(copy / "config.json", saved)
    with pytest.raises(errors.InputError, match=f"is an export.*train.init_from={copy}"):
        loop.train(longer, data, copy)
    names = [
        sorted(p.name for p in (folder / "checkpoints").iterdir()) for folder in (copy, exported)
    ]
    assert names[0] == names[1] and not (copy / "damaged").exists()


def test_nothing_is_exported_over_a_run_or_of_none(workdir, exported, tmp_path):
    with pytest.raises(errors.InputError, match="--out .* is a run; give"):
        checkpoints.export(workdir, exported)
    with pytest.raises(errors.InputError, match="holds no checkpoints; train there first"):
        checkpoints.export(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text("{}")
    with pytest.raises(errors.InputError, match="vae has another config.json"):
        checkpoints.export(workdir, tmp_path / "vae")
    assert (tmp_path / "vae" / "config.json").read_text() == "{}"


def test_an_export_that_was_interrupted_is_made_whole(workdir, exported, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(ocp.Checkpointer, "save", full)
        with pytest.raises(OSError, match="No space left"):
            checkpoints.export(workdir, out)
    assert not (out / "checkpoints").exists()
    checkpoints.export(workdir, out)
    assert {p.name for p in out.iterdir()} == {p.name for p in exported.iterdir()}
    assert Generator(out).identity == Generator(exported).identity


def test_a_damaged_checkpoint_is_not_exported(workdir, tmp_path):
    run = shutil.copytree(workdir, tmp_path / "run")
    path = max((run / "checkpoints" / "4" / "ema" / "d").iterdir(), key=lambda p: p.stat().st_size)
    flip(path, path.stat().st_size // 2)
    with pytest.raises(checkpoints.Damaged, match="checkpoints/4 is damaged"):
        checkpoints.export(run, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()
    assert checkpoints.export(run, tmp_path / "out", step=2) == 2


def test_exporting_leaves_the_accelerator_to_a_run_that_trains(workdir, tmp_path):
    code = """
import sys
from absl import flags
import jax
from lidit_jax import export, processes
processes.use_cpu = lambda count: print("on the CPU:", count)
flags.FLAGS(sys.argv)
export.main()
"""
    arguments = [f"--workdir={workdir}", f"--out={tmp_path / 'out'}", "--checkpoint=2"]
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=env,
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.splitlines()[0] == "on the CPU: 1" and "the model of step 2" in run.stdout
