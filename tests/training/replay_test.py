"""A sample that spoils a step: it is skipped, named, and found again."""

import dataclasses
import shutil

import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.data import records
from lidit_jax.training import loop
from lidit_jax.training import replay as replaying
from lidit_jax.training.replay import replay
from lidit_jax.training.telemetry import step_lines

STEP = 3  # of the spoiled batch


@pytest.fixture(scope="module")
def spoiled(config, data, workdir, tmp_path_factory):
    """A data set of which one sample is larger than any loss can be, its key, and a run on it."""
    folder = shutil.copytree(data, tmp_path_factory.mktemp("spoiled") / "data")
    key = replay(config, data, shutil.copytree(workdir, folder.parent / "whole"), STEP)[5].key
    for path in folder.glob("images/*/*.array_record"):
        shard = records.Shards([path])
        rows = [records.unpack_image(shard[i]) for i in range(len(shard))]
        for i, image in enumerate(rows):
            if image.key == key:
                latent = np.full_like(image.latent_HxWxC, 3e38)
                rows[i] = dataclasses.replace(image, latent_HxWxC=latent)
        records.write_records(path, map(records.pack_image, rows))
    loop.train(config, folder, folder.parent / "run")
    return folder, key, folder.parent / "run"


def test_a_spoiled_step_is_skipped_and_its_samples_are_in_the_ledger(spoiled, workdir):
    _, key, run = spoiled
    (row,) = step_lines.read(run / "ledger.jsonl")
    assert (row["step"], row["what"], row["in_a_row"]) == (STEP, "skipped", 1)
    assert key in row["keys"] and len(row["keys"]) == 8 and row["loss"] == "nan"
    told = step_lines.read(run / "metrics.jsonl")
    assert [line["skipped"] for line in told] == [0, 0, 1, 0]
    assert ["loss" in line for line in told] == [True, True, False, True]
    whole = step_lines.read(workdir / "metrics.jsonl")
    assert [line["loss"] for line in told[:2]] == [line["loss"] for line in whole[:2]]
    assert told[3]["learning_rate"] == whole[2]["learning_rate"] != whole[3]["learning_rate"]


def test_a_replay_names_the_sample_first_and_changes_nothing(config, spoiled, capsys):
    folder, key, run = spoiled
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    first, *others = replay(config, folder, run, STEP)
    assert first.key == key and not np.isfinite(first.loss)
    assert len(others) == 7 and all(np.isfinite(s.loss) for s in others)
    assert [s.loss for s in others] == sorted((s.loss for s in others), reverse=True)
    assert {p: p.read_bytes() for p in before} == before
    told = step_lines.read(run / "replays" / "0000003.jsonl")
    assert [line["key"] for line in told] == [key] + [s.key for s in others]
    assert told[0]["loss"] == str(first.loss)  # JSON knows no number that is not finite
    losses = [s.loss for s in others]
    assert (
        f"step 3 with the parameters of step 2: 8 samples, loss {np.mean(losses):.4f} +- "
        f"{np.std(losses):.4f}, 1 not finite"
    ) in capsys.readouterr().out


def test_the_worst_are_shown(tmp_path, capsys):
    samples = [replaying.Sample(f"key {row}", row, 20.0 - row) for row in range(12)]
    replaying._tell(samples, tmp_path / "0000001.jsonl", 1, 0)
    shown = [line for line in capsys.readouterr().out.splitlines() if "(row" in line]
    assert [line.split("key ")[1] for line in shown] == [f"{row} (row {row})" for row in range(10)]


@pytest.mark.parametrize("step", [1, 3])
def test_a_replay_has_the_batch_and_the_noise_of_the_step(
    step, config, data, workdir, tmp_path, capsys
):
    """With the parameters that the step had, those of step 0 or 2, its mean is the step's loss."""
    run = shutil.copytree(workdir, tmp_path / "run")
    wanted = step_lines.read(workdir / "metrics.jsonl")[step - 1]["loss"]
    found = np.mean([s.loss for s in replay(config, data, run, step)])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert "are gone" not in capsys.readouterr().out


def test_the_last_step_is_replayed_from_before_it(config, data, workdir, tmp_path, capsys):
    replay(config, data, shutil.copytree(workdir, tmp_path / "run"), 4)
    assert "step 4 with the parameters of step 2" in capsys.readouterr().out


@pytest.mark.slow
def test_a_replay_in_micro_batches_gives_each_sample_its_own_loss(config, data, workdir, tmp_path):
    train = dataclasses.replace(config.train, accumulate=2, mesh=(1, 4, -1))
    halved = dataclasses.replace(config, train=train)
    wanted, found = (
        {s.key: s.loss for s in replay(c, data, shutil.copytree(workdir, tmp_path / name), 3)}
        for name, c in (("whole", config), ("halved", halved))
    )
    assert found == pytest.approx(wanted, rel=1e-5) and len(set(wanted.values())) == 8


def test_a_replay_writes_no_other_config_and_tells_which_parameters_are_gone(
    config, data, workdir, tmp_path, capsys
):
    run = shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(run / "checkpoints" / "2")
    (run / "checkpoints" / "6.orbax-checkpoint-tmp").mkdir()
    before = {p: p.is_dir() or p.read_bytes() for p in run.rglob("*")}
    rarely = dataclasses.replace(config, train=dataclasses.replace(config.train, log_every=3))
    capsys.readouterr()
    replay(rarely, data, run, 3)
    assert {p: p.is_dir() or p.read_bytes() for p in before} == before
    gone, losses, *_ = capsys.readouterr().out.splitlines()
    assert (
        gone.startswith("the checkpoints before step 3 are gone; ") and "initial parameters" in gone
    )
    assert losses.startswith("step 3 with the parameters of step 0: 8 samples")


def test_what_cannot_be_replayed_is_refused(config, data, workdir, tmp_path):
    with pytest.raises(errors.InputError, match="--replay=5: the run has 4 steps"):
        replay(config, data, workdir, 5)
    with pytest.raises(errors.InputError, match="train there first"):
        replay(config, data, tmp_path / "none", 1)
    assert not (tmp_path / "none").exists()
