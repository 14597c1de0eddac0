"""A second stage begins where the first ended: weights, EMA and units are carried, the rest is new."""

import contextlib
import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax import errors, files, preparation, rng, sharding
from lidit_jax.data import pipeline
from lidit_jax.training import checkpoints, handover, loop, opening, optim, origin, state
from lidit_jax.training.config import parse
from lidit_jax.training.inputs import open_inputs
from lidit_jax.training.replay import replay
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests import tiny
from tests.end_to_end_test import losses
from tests.same_run import arrays, copy_checkpoint


def stage_dict(llms, source, **train):
    """Another size, other pictures, another optimizer's settings; the same LLM, though another is known."""
    c = tiny.config_dict(llms, steps=4, save_every=1, log_every=1, preview_every=0, keep=9)
    c.text.use = ("tiny0",)
    c.data.size, c.data.options.count = (24, 24), 32
    c.optim.learning_rate, c.optim.warmup_steps, c.optim.ema = 1e-3, 3, 0.9
    c.train.update({"init_from": str(source)} | train)
    return c


@pytest.fixture(scope="module")
def second_data(llms, tmp_path_factory):
    """Read by both LLMs, for a stage that wants another."""
    folder, c = tmp_path_factory.mktemp("second") / "data", stage_dict(llms, "")
    c.text.use = ("tiny0", "tiny1")
    preparation.prepare(parse(c), folder)
    return folder


@pytest.fixture(scope="module")
def first(workdir, tmp_path_factory):
    """The first stage, where a test may remove it."""
    return shutil.copytree(workdir, tmp_path_factory.mktemp("first") / "run")


@pytest.fixture(scope="module")
def second(llms, first, second_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("second") / "run"
    loop.train(parse(stage_dict(llms, first)), second_data, folder)
    return folder


def opened(config, data, mesh=(1, 8, 1)):
    """Returns what the loop has before it begins: config, task, optimizer, like, constants, reader."""
    config, reader, constants = open_inputs(config, data)
    task = diffusion_task(config, tuple(reader.lengths))
    optimizer = optim.make_optimizer(config.optim, config.train.steps)
    graphdef, like = state.abstract(task, optimizer, sharding.make_mesh(mesh))
    return config, task, optimizer, graphdef, like, constants, reader


def same(one, other):
    for name, a in checkpoints.by_name(one).items():
        np.testing.assert_array_equal(a, checkpoints.by_name(other)[name], err_msg=name)


@pytest.mark.parametrize("mesh", [pytest.param((1, 8, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_weights_ema_and_constants_are_carried_and_the_rest_is_new(
    llms, workdir, second_data, mesh, tmp_path
):
    config, _, optimizer, _, like, constants, _ = opened(
        parse(stage_dict(llms, workdir)), second_data, mesh
    )
    chosen = handover.check(config, tmp_path, like, constants)
    began = handover.begin(config, tmp_path, chosen, optimizer, like)
    assert jax.tree.map(lambda a: a.sharding, began) == state.shardings_of(like)
    _, last = checkpoints.restore_fields(workdir, 4, like, ("params", "ema", "constants"))
    for name, part in last.items():
        same(part, getattr(began, name))
    assert int(began.step) == 0
    assert all((np.asarray(a) == 0).all() for a in jax.tree.leaves(began.opt_state))
    saved = arrays(workdir, 4)
    kernel = began.ema["dit"]["blocks"]["ffn"]["up"]["kernel"][...]
    wanted = saved["['ema']['dit']['blocks']['ffn']['up']['kernel']"]
    np.testing.assert_array_equal(kernel, wanted)


def test_moments_are_carried_if_asked_for_and_the_schedule_is_new_all_the_same(
    llms, workdir, second_data, tmp_path
):
    c = stage_dict(llms, workdir, init_optimizer=True)
    config, _, optimizer, _, like, constants, _ = opened(parse(c), second_data)
    chosen = handover.check(config, tmp_path, like, constants)
    began = handover.begin(config, tmp_path, chosen, optimizer, like)
    _, last = checkpoints.restore_fields(workdir, 4, like, ("opt_state",))
    before, after = (s[1] for s in (last["opt_state"], began.opt_state))
    same(before[0].mu, after[0].mu)
    same(before[0].nu, after[0].nu)
    assert np.abs(after[0].mu["dit"]["final"]["kernel"][...]).max() > 0
    assert int(before[0].count) == int(after[0].count) == 4
    assert int(before[-1].count) == 4 and int(after[-1].count) == 0


def test_the_first_loss_is_that_of_the_last_weights_in_the_first_stages_units(
    llms, workdir, second, second_data
):
    config, task, _, graphdef, like, constants, reader = opened(
        parse(stage_dict(llms, workdir)), second_data
    )
    _, last = checkpoints.restore_fields(workdir, 4, like, ("params", "constants"))
    batch = next(pipeline.batches(reader, 8)).batch
    keys_B = rng.per_sample(rng.key(config.seed, "train"), jnp.arange(8))

    @jax.jit
    def loss(constants, batch):
        model = nnx.merge(graphdef, last["params"], constants)
        return task.loss(model, batch, keys_B)[0].mean()

    np.testing.assert_allclose(losses(second)[0], loss(last["constants"], batch), rtol=1e-5)
    own = jax.tree.map(lambda a: a, last["constants"])
    nnx.replace_by_pure_dict(own, constants)
    assert abs(loss(own, batch) - losses(second)[0]) > 1e-4  # the new data has other statistics


def test_the_ema_keeps_its_weight_and_the_schedule_warms_up_again(first, second):
    old, one = arrays(first, 4), arrays(second, 1)
    name = "['ema']['dit']['blocks']['ffn']['up']['kernel']"
    wanted = 0.9 * old[name] + 0.1 * one[name.replace("ema", "params")]
    np.testing.assert_allclose(one[name], wanted, rtol=1e-5, atol=1e-7)
    lines = (second / "metrics.jsonl").read_text().splitlines()
    rates = [json.loads(line)["learning_rate"] for line in lines]
    np.testing.assert_allclose(rates, [1e-3 / 3, 5e-3 / 9, 7e-3 / 9, 1e-3], rtol=1e-5)


@pytest.mark.slow
def test_a_second_stage_resumes_by_itself_bit_for_bit(llms, first, second, second_data, tmp_path):
    """The first stage is gone by then."""
    stopped = shutil.copytree(second, tmp_path / "stopped")
    for step in ("3", "4"):
        shutil.rmtree(stopped / "checkpoints" / step)
    gone = first.rename(tmp_path / "gone")
    try:
        loop.train(parse(stage_dict(llms, first)), second_data, stopped)
    finally:
        gone.rename(first)
    whole, resumed = arrays(second, 4), arrays(stopped, 4)
    for name in whole:
        np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)
    assert losses(stopped) == losses(second)


def test_a_run_that_begins_again_begins_from_the_same_checkpoint(
    llms, first, second_data, tmp_path, capsys
):
    """The first stage trains on meanwhile; then the checkpoint is another, and then it is gone."""
    source = shutil.copytree(first, tmp_path / "source") / "checkpoints"
    later = (source / "4").rename(tmp_path / "later")
    config, run = parse(stage_dict(llms, source.parent)), tmp_path / "run"

    def began():
        with contextlib.closing(opening.set_up(config, second_data, run)) as opened:
            return opened.first_state()

    one = began()
    shutil.copytree(later, source / "4")
    same(one.params, began().params)
    assert capsys.readouterr().out.count(f"beginning from step 2 of {source.parent}\n") == 2
    shutil.rmtree(source / "2")
    with pytest.raises(
        errors.InputError,
        match="step 2 of .*source, from which .*run began, is gone; put it back, or remove .*run/begun.json",
    ):
        began()
    copy_checkpoint(source / "4", source / "2")
    with pytest.raises(
        errors.InputError, match="step 2 of .*source is not the checkpoint that .*run began"
    ):
        began()
    elsewhere = parse(stage_dict(llms, first))
    assert (
        origin.pinned(elsewhere, run) is None
    )  # which `claim` refuses, unless this run is nothing yet


def test_the_first_step_is_replayed_from_where_the_run_began(
    llms, first, second, second_data, tmp_path
):
    """The first stage has trained on since."""
    config, run = parse(stage_dict(llms, first)), shutil.copytree(second, tmp_path / "run")
    later = first / "checkpoints" / "5"
    copy_checkpoint(first / "checkpoints" / "2", later)
    try:
        found = np.mean([s.loss for s in replay(config, second_data, run, 1)])
        np.testing.assert_allclose(found, losses(second)[0], rtol=1e-6)
        (run / origin.NAME).unlink()
        with pytest.raises(errors.InputError, match="begun.json, which says .* is missing; put it"):
            replay(config, second_data, run, 1)
    finally:
        shutil.rmtree(later)


def test_a_second_stage_resumes_on_its_own_data_alone(llms, second, second_data, first, tmp_path):
    """Its model's constants are the first stage's, and tell no data sets apart."""
    stopped = shutil.copytree(second, tmp_path / "stopped")
    shutil.rmtree(stopped / "checkpoints" / "4")
    other = shutil.copytree(second_data, tmp_path / "data")
    info = json.loads((other / "dataset.json").read_text())
    info["latent_mean"][0] += 0.01
    files.write_json(other / "dataset.json", info)
    with pytest.raises(errors.InputError, match="is not the data set .* its latent_mean differs"):
        loop.train(parse(stage_dict(llms, first)), other, stopped)


def with_other_llm(constants, number):
    other = constants["text"][number]
    other = other | {"null_ZxE": -other["null_ZxE"]}
    return constants | {"text": constants["text"] | {number: other}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.model.update(depth=3), r"parameter dit\.blocks\.\S+ is \(2, .*\) in step 4 of .* and \(3, .*\) in this config .model.depth: 2 there, 3 now"),
        (lambda c: c.model.update(width=64), r"parameter \S+ is \(.*\) in .* and \(.*\) in this config .*model.width: 32 there, 64 now"),
        (lambda c: c.model.update(patch=2), "parameter dit.final.bias is .48,. in .* and .12,. in this config .model.patch"),
        (lambda c: c.text.update(use=("tiny0", "tiny1")), r"parameter conditioner.collaborative\S+ is absent in step 4 of .* and \(.*\) in this config .*use: 1 there, 2 now"),
        (lambda c: c.model.conditioner.update(name="direct"), "parameter conditioner.* and absent in this config .model.conditioner.name: 'infused' there, 'direct' now"),
        (lambda c: c.model.conditioner.update(ltr_mask="causal"), "cannot continue from .* with another config .model.conditioner.ltr_mask: 'full' there"),
        (lambda c: c.objective.update(prediction="v"), "another config .objective.prediction: 'x0' there, 'v' now"),
        (lambda c: (c.objective.update(schedule="linear"), c.sample.sampler.update(name="ddim")), "another config .objective.schedule: 'flow' there"),
        (lambda c: (c.optim.update(name="muon"), c.train.update(init_optimizer=True)), "another config .optim.name: 'adamw' there, 'muon' now"),
    ],
)  # fmt: skip
def test_what_weights_cannot_follow_is_refused_and_named(
    llms, workdir, second_data, change, message, tmp_path
):
    c = stage_dict(llms, workdir)
    change(c)
    config, _, _, _, like, constants, _ = opened(parse(c), second_data)
    with pytest.raises(errors.InputError, match=message):
        handover.check(config, tmp_path, like, constants)


def test_a_run_of_another_task_is_refused_by_its_task(llms, workdir, second_data, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    saved = files.read_json(copy / "config.json", "config")
    files.write_json(copy / "config.json", saved | {"task": "vae"})
    config, _, _, _, like, constants, _ = opened(parse(stage_dict(llms, copy)), second_data)
    with pytest.raises(
        errors.InputError, match="run of task 'vae', and this is one of task 'diffusion'"
    ):
        handover.check(config, tmp_path, like, constants)


def test_another_llm_is_refused_by_name_and_another_precision_is_not(
    llms, workdir, second_data, tmp_path
):
    config, _, _, _, like, constants, _ = opened(parse(stage_dict(llms, workdir)), second_data)
    handover.check(
        config, tmp_path, like, jax.tree.map(lambda a: a.astype(jnp.bfloat16), constants)
    )
    with pytest.raises(
        errors.InputError, match=r"encoder 'tiny0' .* differently from LLM number 1"
    ):
        handover.check(config, tmp_path, like, with_other_llm(constants, 0))
    both = constants | {"text": dict.fromkeys((0, 1), constants["text"][0])}
    two = dataclasses.replace(config, encoders=tiny.config(llms).encoders)
    handover.check_constants(both, both, two, "there")
    with pytest.raises(errors.InputError, match="encoder 'tiny1' .* differently from LLM number 2"):
        handover.check_constants(both, with_other_llm(both, 1), two, "there")
    vae = dataclasses.replace(config, data=dataclasses.replace(config.data, codec_hash="0f"))
    with pytest.raises(errors.InputError, match="data.codec_hash: '' there, '0f' now"):
        handover.check(vae, tmp_path, like, constants)


def test_a_constant_that_neither_data_nor_llm_fills_must_be_the_same(config):
    """Such as a table, or the VGG that a VAE is trained by."""
    text = {"text": {0: {"null_ZxE": np.ones((1, 4)), "mean_E": np.zeros(4)}}}
    known = text | {"latent_mean_C": np.zeros(3), "vgg": {"kernel": np.ones((2, 2))}}
    measured = known | {"latent_mean_C": np.ones(3)}
    handover.check_constants(known, measured, config, "there")
    other = known | {"vgg": {"kernel": np.array([[1, 1], [1, 1.01]])}}
    lost = {name: of for name, of in known.items() if name != "vgg"}
    for found in ((known, other), (known, lost), (lost, known)):
        with pytest.raises(errors.InputError, match="constant vgg.kernel .* there"):
            handover.check_constants(*found, config, "there")


def test_computing_otherwise_and_another_optimizer_are_no_hindrance(
    llms, workdir, second_data, tmp_path
):
    c = stage_dict(llms, workdir)
    c.model.update(dtype="bfloat16", remat="full", unroll=1)
    c.optim.name, c.objective.time_shift, c.objective.loss_view = "muon", 2.0, "eps"
    config, _, optimizer, _, like, constants, _ = opened(parse(c), second_data)
    chosen = handover.check(config, tmp_path, like, constants)
    assert int(handover.begin(config, tmp_path, chosen, optimizer, like).step) == 0


def test_a_refusal_writes_nothing(llms, workdir, second_data, tmp_path):
    for source, message in (
        (tmp_path / "none", "train.init_from: no run's config .train there first. at .*none"),
        (
            "gs://bucket/run",
            "train.init_from=gs://bucket/run: want a folder on a mounted filesystem",
        ),
        (workdir, "model.conditioner.context: 'prompt' there, 'all' now"),
    ):
        c = stage_dict(llms, source)
        c.model.conditioner.context = "all"
        with pytest.raises(errors.InputError, match=message):
            loop.train(parse(c), second_data, tmp_path / "run")
        assert not (tmp_path / "run").exists()
    begun = shutil.copytree(workdir, tmp_path / "begun")
    shutil.rmtree(begun / "checkpoints")
    for message in ("holds no checkpoints", "holds no finished checkpoint; train longer"):
        with pytest.raises(errors.InputError, match=message):
            loop.train(parse(stage_dict(llms, begun)), second_data, tmp_path / "run")
        (begun / "checkpoints").mkdir(exist_ok=True)
    with pytest.raises(errors.InputError, match="init_optimizer needs train.init_from"):
        parse(stage_dict(llms, "", init_optimizer=True))
