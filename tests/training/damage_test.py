"""A checkpoint that a disk has damaged is told in one line, whoever wants it."""

import dataclasses
import shutil

import pytest

from lidit_jax import errors, generation
from lidit_jax.training import loop


def test_a_damaged_checkpoint_is_named_with_what_to_do(config, data, workdir, tmp_path):
    emptied, odd = (shutil.copytree(workdir, tmp_path / name) for name in ("emptied", "odd"))
    shutil.rmtree(emptied / "checkpoints" / "4" / "ema")
    with pytest.raises(errors.InputError, match="4 is damaged: .*; remove it to use step 2"):
        generation.Generator(emptied)
    shutil.rmtree(odd / "checkpoints" / "4")
    shutil.rmtree(odd / "checkpoints" / "2" / "opt_state")
    with pytest.raises(errors.InputError, match="2 is damaged: .*; remove it to train again"):
        loop.train(config, data, odd)


def zero(checkpoint):
    for file in checkpoint.glob("*/**/d/*"):
        file.write_bytes(bytes(file.stat().st_size))


def garble(checkpoint):
    for item in ("params", "ema"):
        (checkpoint / item / "_METADATA").write_text("{")


@pytest.mark.parametrize("damage", [zero, garble])
def test_what_a_disk_has_lost_is_told_whoever_wants_it(config, data, workdir, tmp_path, damage):
    run = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "4")
    damage(run / "checkpoints" / "2")
    after = dataclasses.replace(config.train, init_from=str(run))
    for wanted in (
        lambda: loop.train(config, data, run),
        lambda: generation.Generator(run),
        lambda: loop.train(dataclasses.replace(config, train=after), data, tmp_path / "second"),
    ):
        with pytest.raises(errors.InputError, match="2 is damaged: .*; remove it to train again"):
            wanted()
