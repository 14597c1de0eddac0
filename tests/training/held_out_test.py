"""What a run is judged by while it trains: each picture that it does not learn from, once, always alike."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax import errors, preparation, rng
from lidit_jax.training import checkpoints, loop, opening
from lidit_jax.training.checkpoints import record
from lidit_jax.training.held_out import HeldOut
from lidit_jax.training.telemetry import step_lines
from tests import tiny, tiny_prepared


@pytest.fixture(scope="module")
def judged(config, data, held_out, tmp_path_factory):
    """A run whose prompts are mostly dropped, and which keeps the checkpoint that is best by what is held out."""
    train = dataclasses.replace(
        config.train, drop_prompt=0.8, keep=1, keep_best="held_out_loss", preview_every=0
    )
    config, workdir = dataclasses.replace(config, train=train), tmp_path_factory.mktemp("judged")
    loop.train(config, data, workdir / "run", judged_by=held_out)
    return config, workdir / "run"


def told(workdir):
    """Returns what was told of held-out pictures: step -> loss."""
    lines = step_lines.read(workdir / "metrics.jsonl")
    return {line["step"]: line["held_out_loss"] for line in lines if "held_out_loss" in line}


@pytest.fixture(scope="module")
def opened(judged, data, held_out):
    """The run, and the state of its last step."""
    config, workdir = judged
    run = opening.set_up(config, data, workdir, held_out, write=False)
    return run, run.saved_state().state


def test_a_score_is_the_mean_of_each_picture_alone_with_its_prompt(opened, judged):
    run, current = opened
    task = dataclasses.replace(run.task, drop_prompt=0.0)
    ema, constants = jax.device_get((current.ema, current.constants))

    @jax.jit
    def loss(batch, row):
        keys_1 = rng.per_sample(rng.key(0, "held out"), row[None])
        return task.loss(nnx.merge(run.graphdef, ema, constants), batch, keys_1)[0][0]

    alone = [
        loss(jax.tree.map(jnp.asarray, run.held_out.batch([(row, 0)])), row)
        for row in range(len(run.held_out.dataset))
    ]
    assert run.held_out.dataset.counts == [5, 3] and len(set(map(float, alone))) == 8
    assert told(judged[1])[4] == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.slow
def test_a_score_is_the_same_on_another_mesh_in_other_batches(opened, judged, data, held_out):
    config, workdir = judged
    train = dataclasses.replace(config.train, batch_size=8, accumulate=2, mesh=(1, 2, 4))
    other = dataclasses.replace(config, train=train)
    run = opening.set_up(other, data, workdir, held_out, write=False)
    judge = HeldOut(run.score(), run.held_out, run.mesh, train, run.like)
    found = judge.scores(run.saved_state().state)
    assert found == {"held_out_loss": pytest.approx(told(workdir)[4], rel=1e-5)}


def test_each_checkpoint_knows_its_score_and_the_best_is_kept(judged):
    _, workdir = judged
    scores = told(workdir)
    assert list(scores) == [2, 4]
    best = min(scores, key=scores.get)
    assert checkpoints.steps(workdir) == sorted({best, 4})
    for step in checkpoints.steps(workdir):
        means = record.read(workdir / "checkpoints" / str(step))["means"]
        assert means["held_out_loss"] == scores[step] and means["loss"] != scores[step]


def test_a_picture_that_cannot_be_read_is_told_once_and_replaced(
    judged, data, held_out, tmp_path, capsys
):
    config, workdir = judged
    folder = shutil.copytree(held_out, tmp_path / "set")
    path = sorted(folder.glob("images/*/latents-*"))[0]
    tiny_prepared.change_record(path, 0, tiny_prepared.not_finite)
    run = opening.set_up(config, data, workdir, folder, write=False)
    judge = HeldOut(run.score(), run.held_out, run.mesh, config.train, run.like)
    current = run.saved_state().state
    capsys.readouterr()
    first, again = judge.scores(current), judge.scores(current)
    (line,) = capsys.readouterr().out.splitlines()
    assert "cannot be read" in line and "is scored instead" in line
    assert first == again and first["held_out_loss"] != told(workdir)[4]


# What cannot judge a run.


def refused(config, data, folder, tmp_path, why):
    with pytest.raises(errors.InputError, match=why):
        loop.train(config, data, tmp_path / "run", judged_by=folder)
    assert not (tmp_path / "run").exists()


def test_the_best_by_what_is_held_out_needs_what_is_held_out(judged, data, tmp_path):
    config, workdir = judged
    with pytest.raises(errors.InputError, match="held_out_loss.* is only known with --held_out"):
        loop.train(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_that_are_trained_on_are_refused(config, data, tmp_path):
    refused(config, data, data, tmp_path, "pictures that are trained on.*data.part=held_out")


def test_the_two_parts_of_a_source_are_a_training_set_and_its_judge(llms, tmp_path):
    c = tiny.config_dict(llms[:1], **tiny.RUN)
    c.data.options.count, c.data.hold_out = 24, 0.3
    parts = {}
    for part, share in (("train", 0.3), ("held_out", 0.3), ("held_out", 0.6)):
        c.data.part, c.data.hold_out = part, share
        parts[part, share] = tiny.parse(c), tmp_path / f"{part}{share}"
        preparation.prepare(*parts[part, share])
    config, data = parts["train", 0.3]
    run = opening.set_up(config, data, tmp_path / "run", parts["held_out", 0.3][1], write=False)
    keys = [{r.key(row) for row in range(len(r.dataset))} for r in (run.reader, run.held_out)]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == 24
    refused(config, data, parts["held_out", 0.6][1], tmp_path, "pictures that are trained on")
    refused(config, parts["held_out", 0.3][1], data, tmp_path, "hold_out is 'only the 0.3 held out")


def test_features_of_another_llm_are_refused(config, data, held_out, tmp_path):
    folder = shutil.copytree(held_out, tmp_path / "set")
    (store,) = (folder / "features").iterdir()
    tiny_prepared.change_json(store / "encoder.json", layer=-2)
    refused(config, data, folder, tmp_path, "layer is -2, the config wants -3")


def test_no_part_is_held_out_of_none(llms):
    c = tiny.config_dict(llms[:1])
    c.data.part = "held_out"
    with pytest.raises(errors.InputError, match="no pictures are held out; set data.hold_out"):
        tiny.parse(c)
    c.data.part = "test"
    with pytest.raises(errors.InputError, match="data.part 'test'; known: held_out, train"):
        tiny.parse(c)
