"""What a run is judged by while it trains: each picture that it does not learn from, once, always alike."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax import errors, preparation, rng, sharding
from lidit_jax.processes import Stopped
from lidit_jax.training import checkpoints, loop, opening, programs
from lidit_jax.training.checkpoints import record
from lidit_jax.training.held_out import NOT_COUNTED, HeldOut
from lidit_jax.training.telemetry import step_lines
from tests import same_run, several, tiny, tiny_prepared


@pytest.fixture(scope="module")
def judged(config, data, held_out, tmp_path_factory):
    """A run whose prompts are mostly dropped, which grows worse, and keeps the best by what is held out."""
    train = dataclasses.replace(
        config.train,
        drop_prompt=0.8,
        keep=1,
        keep_best="held_out_loss",
        preview_every=0,
        log_every=3,
    )
    optim = dataclasses.replace(config.optim, learning_rate=1.0, warmup_steps=2)
    model = dataclasses.replace(config.model, depth=1)
    config = dataclasses.replace(config, train=train, optim=optim, model=model)
    workdir = tmp_path_factory.mktemp("judged") / "run"
    loop.train(config, data, workdir, held_out=held_out)
    return config, workdir


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


def alone_each(run, current):
    """Returns the loss of each picture of the held-out set in a batch of its own, with its prompt."""
    task = dataclasses.replace(run.task, drop_prompt=0.0)
    ema, constants = jax.device_get((current.ema, current.constants))

    @jax.jit
    def loss(batch, row):
        keys_1 = rng.per_sample(rng.key(0, "held out"), row[None])
        return task.loss(nnx.merge(run.graphdef, ema, constants), batch, keys_1)[0][0]

    return [
        float(loss(jax.tree.map(jnp.asarray, run.held_out.batch([(row, 0)])), row))
        for row in range(len(run.held_out.dataset))
    ]


def test_a_score_is_the_mean_of_each_picture_alone_with_its_prompt(opened, judged):
    alone = alone_each(*opened)
    assert opened[0].held_out.dataset.counts == [5, 3] and len(set(alone)) == 8
    assert told(judged[1])[4] == pytest.approx(np.mean(alone), rel=1e-5)


@pytest.mark.slow
def test_a_score_is_the_same_on_another_mesh_in_other_batches(opened, judged, data, held_out):
    config, workdir = judged
    train = dataclasses.replace(config.train, batch_size=8, accumulate=2, mesh=(1, 2, 4))
    other = dataclasses.replace(config, train=train)
    run = opening.set_up(other, data, workdir, held_out, write=False)
    found = HeldOut(run).scores(run.saved_state().state)
    assert found == {"held_out_loss": pytest.approx(told(workdir)[4], rel=1e-5)}


def test_each_checkpoint_knows_its_score_and_the_best_is_kept(judged):
    _, workdir = judged
    scores = told(workdir)
    assert list(scores) == [2, 4] and scores[2] < scores[4]
    lines = step_lines.read(workdir / "metrics.jsonl")
    assert [line["step"] for line in lines if "loss" in line] == [3, 4]  # the last, whenever
    assert checkpoints.steps(workdir) == [2, 4]
    for step in checkpoints.steps(workdir):
        means = record.read(workdir / "checkpoints" / str(step))["means"]
        assert means["held_out_loss"] == scores[step] and means["loss"] != scores[step]


def test_a_picture_that_cannot_be_read_is_told_once_and_not_counted(
    opened, judged, data, held_out, tmp_path, capsys
):
    config, workdir = judged
    folder = shutil.copytree(held_out, tmp_path / "set")
    path = sorted(folder.glob("images/*/latents-*"))[0]
    tiny_prepared.change_record(path, 0, tiny_prepared.not_finite)
    run = opening.set_up(config, data, workdir, folder, write=False)
    judge = HeldOut(run)
    capsys.readouterr()
    first, again = judge.scores(opened[1]), judge.scores(opened[1])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"1 of the 8 pictures of {folder} cannot be read") and first == again
    others = alone_each(*opened)[1:]
    assert first == {"held_out_loss": pytest.approx(np.mean(others), rel=1e-5)}
    with pytest.raises(errors.InputError, match=f"none of the 8 pictures of {folder} can be read"):
        judge._tell(counted=0)


def test_a_program_is_there_for_every_size_in_micro_batches(judged, data, held_out, monkeypatch):
    config, workdir = judged
    train = dataclasses.replace(config.train, accumulate=2, mesh=(1, 2, 4))
    config, specs, alive = dataclasses.replace(config, train=train), [], object()
    run = opening.set_up(config, data, workdir, held_out, write=False)
    monkeypatch.setattr(programs, "compile_each", lambda *args: specs.append(args[2:]))
    HeldOut(run, alive)
    ((specs, _, told_to),) = specs
    assert len({spec.latents_BxHxWxC.shape for spec in specs}) == 2 and told_to is alive
    assert [len(spec.row_B) for spec in specs] == [4, 4]


def test_a_set_of_which_nothing_can_be_read_judges_nothing(opened, monkeypatch):
    run, current = opened
    judge = HeldOut(run)
    read = judge._read

    def unreadable(rows):
        batch = read(rows)
        return dataclasses.replace(batch, row_B=np.full_like(batch.row_B, NOT_COUNTED))

    monkeypatch.setattr(judge, "_read", unreadable)
    with pytest.raises(errors.InputError, match="none of the 8 pictures of .* can be read"):
        judge.scores(current)


def test_a_judge_looks_at_a_micro_batch_at_once(opened, monkeypatch):
    run, sizes = opened[0], set()
    train = dataclasses.replace(run.config.train, accumulate=2)
    halved = dataclasses.replace(
        run,
        config=dataclasses.replace(run.config, train=train),
        mesh=sharding.make_mesh((1, 4, 2)),
    )
    monkeypatch.setattr(
        programs,
        "compile_each",
        lambda score, like, specs, *_: sizes.update(spec.row_B.shape for spec in specs),
    )
    HeldOut(halved)
    assert sizes == {(train.batch_size // 2,)}


def test_who_is_told_to_stop_stops_scoring(opened):
    run, current = opened
    asked, batches = iter([False, True]), []
    judge = HeldOut(run, alive=lambda: batches.append(1))
    batches.clear()  # of its programs
    assert judge.scores(current, lambda: next(asked)) is None and len(batches) == 1


@pytest.mark.slow
def test_a_stop_while_scoring_leaves_the_score_to_the_next_step(
    config, data, held_out, tmp_path, monkeypatch
):
    """The second step is due; the third question is the first of its scoring's."""

    with several.stopped(monkeypatch, question=3), pytest.raises(Stopped, match="at step 2"):
        loop.train(config, data, tmp_path / "run", held_out=held_out)
    assert told(tmp_path / "run") == {} and checkpoints.steps(tmp_path / "run") == [2]
    loop.train(config, data, tmp_path / "run", held_out=held_out)
    assert list(told(tmp_path / "run")) == [3, 4]
    loop.train(config, data, tmp_path / "whole", held_out=held_out)
    assert told(tmp_path / "run")[4] == told(tmp_path / "whole")[4]


@pytest.mark.slow
def test_a_stop_while_the_last_step_is_scored_leaves_that_to_the_next_start(
    config, data, held_out, tmp_path, monkeypatch, capsys
):
    """The seventh question is the first of its scoring's: a step asks once, a score once for each bin."""
    run = tmp_path / "run"

    with several.stopped(monkeypatch, question=7), pytest.raises(Stopped, match="at step 4"):
        loop.train(config, data, run, held_out=held_out)
    assert list(told(run)) == [2] and checkpoints.steps(run) == [2, 4]
    assert record.read(run / "checkpoints" / "4")["means"] == {}
    loop.train(config, data, run, held_out=held_out)
    loop.train(config, data, tmp_path / "whole", held_out=held_out)
    assert told(run) == told(tmp_path / "whole") and list(told(run)) == [2, 4]
    capsys.readouterr()
    loop.train(config, data, run, held_out=held_out)
    assert "already trained to step 4" in capsys.readouterr().out and list(told(run)) == [2, 4]


@pytest.mark.slow
def test_a_run_that_is_scored_trains_as_one_that_is_not(config, data, held_out, workdir, tmp_path):
    loop.train(config, data, tmp_path / "run", held_out=held_out)
    lines = [line for line in same_run.metrics(tmp_path / "run") if "loss" in line]
    assert lines == same_run.metrics(workdir)


def test_only_a_stopped_runs_last_step_is_scored_later_and_once(
    opened, judged, tmp_path, monkeypatch
):
    run = dataclasses.replace(opened[0], workdir=shutil.copytree(judged[1], tmp_path / "run"))
    assert not loop._unscored(run, 4)
    (run.workdir / "metrics.jsonl").unlink()
    assert not loop._unscored(run, 4)  # it was saved when it was due, and scored then if at all
    monkeypatch.setattr(checkpoints, "was_due", lambda *_: False)
    assert loop._unscored(run, 4)
    assert not loop._unscored(dataclasses.replace(run, held_out=None), 4)


# What cannot judge a run.


def refused(config, data, folder, tmp_path, why):
    with pytest.raises(errors.InputError, match=why):
        loop.train(config, data, tmp_path / "run", held_out=folder)
    assert not (tmp_path / "run").exists()


def test_the_best_by_what_is_held_out_needs_what_is_held_out(judged, data, tmp_path):
    config, workdir = judged
    with pytest.raises(errors.InputError, match="held_out_loss.* requires --held_out"):
        loop.train(config, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert opening.set_up(config, data, workdir, write=False).held_out is None  # who only looks


def test_only_a_run_that_is_kept_by_what_is_held_out_must_keep_to_it(opened):
    run, told = opened[0], checkpoints.record_of(opened[0].workdir, 4)
    run.check_data({name: value for name, value in told.items() if name != "held_out"})
    other = told | {"held_out": {}}
    with pytest.raises(errors.InputError, match="is not the --held_out that train.keep_best used"):
        run.check_data(other)
    train = dataclasses.replace(run.config.train, keep_best="loss")
    dataclasses.replace(run, config=dataclasses.replace(run.config, train=train)).check_data(other)


def test_pictures_that_are_trained_on_are_refused(config, data, tmp_path):
    refused(config, data, data, tmp_path, "pictures that are trained on.*data.part=held_out")


def test_the_two_parts_of_a_source_are_a_training_set_and_its_judge(llms, judged, data, tmp_path):
    c = tiny.config_dict(llms[:1], **tiny.RUN)
    c.data.options.count, c.data.hold_out = 24, 0.3
    parts = {}
    for part, share in (("train", 0.3), ("held_out", 0.3), ("held_out", 0.6)):
        c.data.part, c.data.hold_out = part, share
        parts[part, share] = tiny.parse(c), tmp_path / f"{part}{share}"
        preparation.prepare(*parts[part, share])
    (config, trained_on), (_, left_out) = parts["train", 0.3], parts["held_out", 0.3]
    run = opening.set_up(config, trained_on, tmp_path / "run", left_out, write=False)
    keys = [{r.key(row) for row in range(len(r.dataset))} for r in (run.reader, run.held_out)]
    assert not keys[0] & keys[1] and len(keys[0] | keys[1]) == 24
    refused(config, trained_on, parts["held_out", 0.6][1], tmp_path, "pictures that are trained on")
    refused(
        config,
        parts["held_out", 0.3][1],
        data,
        tmp_path,
        "part is 'held_out', the config wants 'train'",
    )
    run = opening.set_up(judged[0], data, judged[1], left_out, write=False)
    with pytest.raises(errors.InputError, match="is not the --held_out that train.keep_best used"):
        run.saved_state()
    train = dataclasses.replace(run.config.train, keep_best="")
    last = dataclasses.replace(run, config=dataclasses.replace(run.config, train=train))
    last.check_data(record.read(judged[1] / "checkpoints" / "4"))  # nothing is kept by it


def test_features_of_another_llm_are_refused(config, data, held_out, tmp_path):
    folder = shutil.copytree(held_out, tmp_path / "set")
    (store,) = (folder / "features").iterdir()
    tiny_prepared.change_json(store / "encoder.json", layer=-2)
    refused(config, data, folder, tmp_path, "layer is -2, the config wants -3")


def test_no_part_is_held_out_of_none(llms):
    c = tiny.config_dict(llms[:1])
    c.data.part = "held_out"
    with pytest.raises(
        errors.InputError, match="no pictures are held out.*data.hold_out is 0; set it"
    ):
        tiny.parse(c)
    c.data.part = "test"
    with pytest.raises(errors.InputError, match="data.part 'test'; known: held_out, train"):
        tiny.parse(c)
