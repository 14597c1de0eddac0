"""The journey on tiny real LLMs: prepare, train, resume, draw; each law of a run, and of bad input."""

import dataclasses
import itertools
import json
import re
import shutil

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from lidit_jax import errors, files, generation, preparation
from lidit_jax.data import pipeline
from lidit_jax.evaluation import pictures
from lidit_jax.probing import states
from lidit_jax.prompts import Prompt
from lidit_jax.training import checkpoints, loop
from lidit_jax.training.inputs import open_inputs
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests import tiny
from tests.same_run import arrays


@pytest.fixture(scope="module")
def resumed(config, data, workdir, tmp_path_factory):
    """The same run stopped by a lack of checkpoints after step 2, and trained on."""
    folder = shutil.copytree(workdir, tmp_path_factory.mktemp("run") / "resumed")
    shutil.rmtree(folder / "checkpoints" / "4")
    loop.train(config, data, folder)
    return folder


def losses(workdir):
    return [
        json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()
    ]


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(workdir, resumed):
    whole, other = arrays(workdir, 4), arrays(resumed, 4)
    assert whole.keys() == other.keys() and len(whole) > 100
    for name in whole:
        np.testing.assert_array_equal(whole[name], other[name], err_msg=name)
    assert losses(resumed) == losses(workdir)
    moved = arrays(workdir, 2)
    assert any((whole[name] != moved[name]).any() for name in whole if "params" in name)


@pytest.mark.slow
def test_two_llms_are_read_trained_on_and_drawn_with(llms, tmp_path):
    """From captions to pictures; the other tests are of one LLM, whose step compiles in half the time."""
    c = tiny.config_dict(llms, steps=4, save_every=2, log_every=1, preview_every=0)
    c.model.depth = c.model.conditioner.n_ltr = 1
    config = tiny.parse(c)
    preparation.prepare(config, tmp_path / "data")
    loop.train(config, tmp_path / "data", tmp_path / "run")
    assert len(losses(tmp_path / "run")) == 4 and np.isfinite(losses(tmp_path / "run")).all()
    two, four = (arrays(tmp_path / "run", step) for step in (2, 4))
    params = [name for name in four if name.startswith("['params']")]
    learned = {name for name in params if (two[name] != four[name]).any()}
    for n in range(2):  # each LLM's refiner learns
        assert any(re.search(rf"refiners\W+{n}\W", name) for name in learned), learned
    with pytest.raises(errors.InputError, match="unknown encoder of the run .tiny.; known: tiny"):
        generation.Generator(tmp_path / "run", llms={"tiny": "x"})
    with pytest.raises(errors.InputError, match="has 2 LLMs and mixes their tokens"):
        states.only_encoder(tmp_path / "run")
    moved = {"tiny1": str(shutil.copytree(llms[1], tmp_path / "moved"))}
    here, there = (
        generation.Generator(tmp_path / "run", llms=known)(["a red star"], [0])
        for known in (None, moved)
    )
    np.testing.assert_array_equal(here, there)


@pytest.mark.slow
def test_a_run_resumes_with_other_micro_batches_and_learns_the_same(data, llms, workdir, tmp_path):
    """So that a run which ran out of memory can go on in less."""
    halved = shutil.copytree(workdir, tmp_path / "halved")  # of one micro-batch on eight devices
    shutil.rmtree(halved / "checkpoints" / "4")
    config = tiny.config(llms[:1], **tiny.RUN, accumulate=2, mesh=(1, 4, -1))
    loop.train(config, data, halved)
    np.testing.assert_allclose(losses(halved), losses(workdir), rtol=1e-5)
    whole, resumed = arrays(workdir, 4), arrays(halved, 4)
    for name in whole.keys() - {"record"}:
        np.testing.assert_allclose(whole[name], resumed[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_resumed_batches_are_the_ones_that_would_have_come(config, data):
    config, reader, _ = open_inputs(config, data)
    whole = pipeline.batches(reader, 8)
    rows = [next(whole).batch.row_B for _ in range(12)]
    stopped = pipeline.batches(reader, 8)
    for _ in range(5):
        next(stopped)
    fresh = pipeline.batches(reader, 8)
    fresh.set_state(stopped.get_state())
    for i in range(5, 12):
        np.testing.assert_array_equal(next(fresh).batch.row_B, rows[i])
    # an epoch shows every row once, and the next in another order
    assert sorted(np.concatenate(rows[:6])) == list(range(48)) == sorted(np.concatenate(rows[6:]))
    assert (np.concatenate(rows[:6]) != np.concatenate(rows[6:])).any()


def test_two_processes_share_the_global_batch_of_one(config, data):
    _, reader, _ = open_inputs(config, data)
    whole = pipeline.batches(reader, 8)
    parts = [pipeline.batches(reader, 8, rows=range(4 * i, 4 * i + 4)) for i in range(2)]
    for _ in range(8):
        batch, (first, second) = next(whole).batch, [next(p).batch for p in parts]
        joined = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
        jax.tree.map(np.testing.assert_array_equal, batch, joined)


def test_a_batch_is_what_its_spec_says_and_the_model_standardises_its_latents(config, data):
    config, reader, constants = open_inputs(config, data)
    task = diffusion_task(config, tuple(reader.lengths))
    batch = next(pipeline.batches(reader, 8)).batch
    wanted = task.batch_spec()
    assert jax.tree.structure(batch) == jax.tree.structure(wanted)
    for got, want in zip(jax.tree.leaves(batch), jax.tree.leaves(wanted)):
        assert (got.shape, got.dtype) == (want.shape, want.dtype)
    model = task.init(nnx.Rngs(0))
    for name in ("latent_mean_C", "latent_std_C"):
        getattr(model, name).set_value(constants[name])
    raw = np.stack([reader.dataset.image(i).latent_HxWxC for i in range(48)])
    every = model.from_raw(raw)
    np.testing.assert_allclose(every.mean((0, 1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(every.std((0, 1, 2)), 1, atol=0.02)
    np.testing.assert_allclose(model.to_raw(every), raw, atol=1e-6)
    seen = batch.latents_BxHxWxC
    rows = np.stack([reader.dataset.image(i).latent_HxWxC for i in batch.row_B])
    np.testing.assert_array_equal(seen, rows)


def test_the_run_directory_holds_what_it_should(workdir):
    assert sorted(p.name for p in (workdir / "checkpoints").iterdir()) == ["2", "4"]
    assert list((workdir / "tensorboard").iterdir())
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert {"loss", "grad_norm", "learning_rate", "steps_per_s", "images_per_s"} <= lines[0].keys()
    preview = np.asarray(Image.open(workdir / "samples" / "step-0000004.png"))
    assert preview.ndim == 3 and preview.std() > 1


def test_preparing_again_finds_the_work_done_and_repairs_what_is_missing(config, data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    before = {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()}
    preparation.prepare(config, copy)
    assert {p: p.stat().st_mtime_ns for p in copy.rglob("*") if p.is_file()} == before
    (copy / "dataset.json").unlink()
    for pattern in ("latents-00001*", "features-00000*", "dataset.json"):
        lost = next(copy.rglob(pattern)) if pattern != "dataset.json" else copy / pattern
        content = lost.read_bytes() if lost.exists() else (data / pattern).read_bytes()
        lost.unlink(missing_ok=True)
        preparation.prepare(config, copy)
        assert lost.read_bytes() == content


def test_an_llm_that_cannot_work_is_told_before_the_pictures(llms, tmp_path):
    folder = shutil.copytree(llms[0], tmp_path / "llm")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(errors.InputError, match="cannot load .*llm"):
        preparation.prepare(tiny.config([folder]), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_a_damaged_shard_is_named(config, data, tmp_path):
    copy = shutil.copytree(data, tmp_path / "copy")
    shard = next((copy / "images").rglob("latents-00001*"))
    shard.write_bytes(shard.read_bytes()[:5000])
    with pytest.raises(errors.InputError, match=r"latents-00001.* is damaged .*delete it and run"):
        loop.train(config, copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_mixed_into_a_data_set(config, data):
    before = sorted(data.rglob("*"))
    with pytest.raises(errors.InputError, match="is a data set; give the run a separate folder"):
        loop.train(config, data, data)
    assert sorted(data.rglob("*")) == before


def test_another_encoder_adds_a_store_and_touches_nothing_else(llms, data, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(data, copy)
    before = {p: p.read_bytes() for p in copy.rglob("*") if p.is_file()}
    c = tiny.config_dict(llms)
    c.text.encoders.tiny0.instruction = False
    config = tiny.parse(c)
    preparation.prepare(config, copy)
    assert all(p.read_bytes() == content for p, content in before.items())
    stores = sorted(p.parent.name for p in copy.rglob("encoder.json"))
    assert len(stores) == 3 and {e.store for e in config.encoders} < set(stores)


def test_generated_pictures_are_each_seeds_own(config, workdir):
    generator = generation.Generator(workdir)
    prompts, seeds = ["a red circle", "", "a blue star"], [5, 6, 7]
    images = generator(prompts, seeds)
    assert images.shape == (3, 16, 16, 3) and images.dtype == np.uint8
    assert (images[0] != images[2]).any()
    # a batch of another size, where rounding may differ in the last bit
    alone = generator(prompts[2:], seeds[2:])
    assert np.abs(alone[0].astype(int) - images[2].astype(int)).max() <= 1
    wide = generator(["a red circle"], [5], size=(8, 24))
    assert wide.shape == (1, 8, 24, 3)
    with pytest.raises(
        errors.InputError, match="picture size 16x18: 18 is not divisible by 4 .* use 16 or 20"
    ):
        generator(["a"], [0], size=(16, 18))
    with pytest.raises(errors.InputError, match="has more than 67,108,864 pixels"):
        generator(["a"], [0], size=(16_000, 160_000))


def test_a_samples_folder_is_read_by_the_judges_and_found_done(workdir, tmp_path, capsys):
    generator = generation.Generator(workdir)
    grid = generation.generate(
        generator, [Prompt("a red circle"), Prompt("a blue star")], [0, 1], tmp_path / "out"
    )
    assert np.asarray(Image.open(grid)).std() > 1
    found = pictures.read(tmp_path / "out")
    assert [(p.prompt, p.seed) for p in found] == [("a red circle", 0), ("a blue star", 1)]
    stamp = grid.stat().st_mtime_ns
    generation.generate(
        generator, [Prompt("a red circle"), Prompt("a blue star")], [0, 1], tmp_path / "out"
    )
    assert grid.stat().st_mtime_ns == stamp and "already" in capsys.readouterr().out
    grid.unlink()
    with pytest.raises(errors.InputError, match="another request"):
        generation.generate(generator, [Prompt("a red circle")], [0], tmp_path / "out")


def test_each_prompt_is_drawn_at_its_own_size(workdir, tmp_path):
    generator = generation.Generator(workdir)
    wanted = [Prompt("a blue star", (8, 24)), Prompt("a red circle"), Prompt("a cyan star")]
    grid = generation.generate(generator, wanted, [0, 1, 2], tmp_path / "out")
    drawn = [p.load() for p in pictures.read(tmp_path / "out")]
    assert [image.shape for image in drawn] == [(8, 24, 3), (16, 16, 3), (16, 16, 3)]
    alone = generator(["a blue star"], [0], size=(8, 24))[0]
    assert np.abs(drawn[0].astype(int) - alone.astype(int)).max() <= 1
    assert np.asarray(Image.open(grid)).shape[:2] == (2 * (16 * 6 + 2) + 2, 2 * (24 * 6 + 2) + 2)
    wanted[2] = Prompt("a cyan star", (16, 18))
    with pytest.raises(errors.InputError, match="18 is not divisible"):
        generation.generate(generator, wanted, [0, 1, 2], tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()


def test_a_request_that_was_stopped_continues(workdir, tmp_path, monkeypatch):
    sample = dataclasses.replace(generation.sample_config(workdir), batch_size=2)
    generator, out = generation.Generator(workdir, sample), tmp_path / "out"
    prompts, seeds = [f"a {c} star" for c in ("red", "blue", "cyan", "black", "green")], range(5)
    whole = generator(prompts, list(seeds))
    drawn = generator.draw

    def stopped(*args):
        yield from itertools.islice(drawn(*args), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(generator, "draw", stopped)
    with pytest.raises(KeyboardInterrupt):
        generation.generate(generator, [Prompt(p) for p in prompts], list(seeds), out)
    assert sorted(p.name for p in out.glob("0*.png")) == [f"{i:06d}.png" for i in range(3)]
    with pytest.raises(errors.InputError, match="names 2 files that are not in"):
        pictures.read(out)
    first = (out / "000000.png").stat().st_mtime_ns
    monkeypatch.setattr(generator, "draw", drawn)
    (out / "000001.png").unlink()
    generation.generate(generator, [Prompt(p) for p in prompts], list(seeds), out)
    assert (out / "000000.png").stat().st_mtime_ns == first
    for picture, image in zip(pictures.read(out), whole, strict=True):
        # in batches of other company, where rounding may differ in the last bit
        assert np.abs(picture.load().astype(int) - image.astype(int)).max() <= 1


def test_a_workdir_of_another_config_is_refused_and_left_alone(
    config, data, workdir, llms, tmp_path
):
    before = (workdir / "config.json").read_bytes()
    other = dataclasses.replace(config, seed=1)
    with pytest.raises(errors.InputError, match="holds another config's run .seed: 0 there, 1 now"):
        loop.train(other, data, workdir)
    assert (workdir / "config.json").read_bytes() == before
    # how often to log is not what a run is
    copy = shutil.copytree(workdir, tmp_path / "copy")
    loop.train(tiny.config(llms[:1], steps=4, save_every=4, log_every=2), data, copy)


def test_training_refuses_a_data_set_that_is_not_the_configs(llms, data, tmp_path):
    c = tiny.config_dict(llms[:1])
    c.data.size = (24, 24)
    with pytest.raises(errors.InputError, match=r"size is \[16, 16\], the config wants \[24, 24\]"):
        loop.train(tiny.parse(c), data, tmp_path / "run")
    c = tiny.config_dict(llms[:1])
    c.text.encoders.tiny0.layer = -2
    with pytest.raises(errors.InputError, match="no text features 'tiny0-instruction-layer-2-"):
        loop.train(tiny.parse(c), data, tmp_path / "run")
    c = tiny.config_dict(llms[:1])
    c.text.encoders.tiny0.width = 999
    with pytest.raises(errors.InputError, match="has width 16, but the config says 999"):
        loop.train(tiny.parse(c), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_patch_that_does_not_divide_is_refused_before_anything_is_written(llms, data, tmp_path):
    c = tiny.config_dict(llms[:1])
    c.model.patch = 5
    with pytest.raises(
        errors.InputError,
        match=r"16x16: 16 is not divisible by 5 \(patch 5 x VAE 1\); use 15 or 20",
    ):
        loop.train(tiny.parse(c), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sampling_without_a_run_says_so(tmp_path):
    with pytest.raises(errors.InputError, match="train there first"):
        generation.Generator(tmp_path)


def test_config_json_rebuilds_the_config(config, data, workdir):
    measured, _, _ = open_inputs(config, data)
    saved = files.read_json(workdir / "config.json", "config")
    from lidit_jax.training.config import Config, build

    rebuilt = build(Config, saved, "config")
    assert checkpoints.to_json(rebuilt) == checkpoints.to_json(measured)
    assert rebuilt.encoders == measured.encoders and measured.encoders[0].width == 16


def test_sampling_with_other_weights_than_trained_with_is_refused(workdir, llms, tmp_path):
    copy = shutil.copytree(workdir, tmp_path / "copy")
    saved = json.loads((copy / "config.json").read_text())
    saved["encoders"][0]["model"] = llms[1]
    files.write_json(copy / "config.json", saved)
    with pytest.raises(errors.InputError, match="its weights are not those of encoder 'tiny0'"):
        generation.Generator(copy)(["a"], [0])


def test_an_llm_that_moved_is_found_where_it_is_now(workdir, llms, tmp_path):
    moved = {"tiny0": str(shutil.copytree(llms[0], tmp_path / "moved"))}
    here = generation.Generator(workdir)(["a red star"], [0])
    np.testing.assert_array_equal(
        generation.Generator(workdir, llms=moved)(["a red star"], [0]), here
    )
    with pytest.raises(errors.InputError, match="unknown encoder of the run 'tiny'; known: tiny0"):
        generation.Generator(workdir, llms={"tiny": "x"})
    with pytest.raises(errors.InputError, match="its weights are not those of encoder 'tiny0'"):
        generation.Generator(workdir, llms={"tiny0": llms[1]})(["a"], [0])


def test_a_resumed_run_on_data_of_other_statistics_is_refused(config, data, workdir, tmp_path):
    half, other = (
        shutil.copytree(workdir, tmp_path / "half"),
        shutil.copytree(data, tmp_path / "data"),
    )
    shutil.rmtree(half / "checkpoints" / "4")
    path = other / "features" / config.encoders[0].store / "encoder.json"
    info = json.loads(path.read_text())
    files.write_json(path, info | {"std": [2 * x for x in info["std"]]})
    with pytest.raises(errors.InputError, match="is not the data set that the run was trained on"):
        loop.train(config, other, half)


def test_a_finished_run_on_other_latents_is_refused(config, data, workdir, tmp_path):
    other = shutil.copytree(data, tmp_path / "data")
    info = json.loads((other / "dataset.json").read_text())
    files.write_json(other / "dataset.json", info | {"latent_mean": info["latent_std"]})
    with pytest.raises(errors.InputError, match="its latent_mean differs from the checkpo"):
        loop.train(config, other, workdir)


def test_a_run_asks_not_where_a_sources_pictures_are(config, data, workdir, capsys):
    """Another machine, or another mount, may have them elsewhere; a training reads none."""
    options = config.data.options | {"path": "/elsewhere"}
    moved = dataclasses.replace(config, data=dataclasses.replace(config.data, options=options))
    loop.train(moved, data, workdir)
    assert "is already trained to step 4" in capsys.readouterr().out


def test_checkpoints_without_their_config_are_not_adopted(config, data, workdir, tmp_path):
    lone = shutil.copytree(workdir, tmp_path / "lone")
    (lone / "config.json").unlink()
    with pytest.raises(errors.InputError, match="config.json is missing, but .*checkpoints holds"):
        loop.train(config, data, lone)
    assert not (lone / "config.json").exists()


@pytest.mark.slow
def test_what_is_not_finite_is_never_saved(llms, data, tmp_path):
    """Between two logs, and with a save every step."""
    broken = tiny.config(llms[:1], steps=6, save_every=1, log_every=6)
    broken = dataclasses.replace(broken, guard=dataclasses.replace(broken.guard, patience=2))
    broken = dataclasses.replace(
        broken, optim=dataclasses.replace(broken.optim, learning_rate=1e30, warmup_steps=0)
    )
    with pytest.raises(
        FloatingPointError, match="2 steps in a row were skipped, the last at step 3: loss is inf"
    ):
        loop.train(broken, data, tmp_path / "run")
    assert 1 in checkpoints.steps(tmp_path / "run")
    for step in checkpoints.steps(tmp_path / "run"):
        saved = arrays(tmp_path / "run", step)
        weights = {k: a for k, a in saved.items() if "params" in k or "ema" in k}
        assert weights and all(np.isfinite(a).all() for a in weights.values())


def test_a_sampler_that_does_not_fit_the_schedule_is_refused_before_training(llms, data, tmp_path):
    c = tiny.config_dict(llms[:1])
    c.objective.schedule = "linear"
    with pytest.raises(errors.InputError, match="sampler 'euler' is for schedule 'flow'"):
        loop.train(tiny.parse(c), data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_pictures_of_another_run_are_not_taken_for_this_ones(workdir, resumed, tmp_path):
    """Same config, same step, same bits, but trained again: another run."""
    request = [Prompt("a red circle")], [0], tmp_path / "out"
    generation.generate(generation.Generator(workdir), *request)
    with pytest.raises(errors.InputError, match="another request"):
        generation.generate(generation.Generator(resumed), *request)


def test_a_killed_encoding_is_not_finished_by_another_llm(llms, tmp_path):
    """The weights in the LLM's folder change before the second half is read."""
    folder, data = shutil.copytree(llms[0], tmp_path / "llm"), tmp_path / "data"
    config = tiny.config([folder])
    preparation.prepare(config, data)
    store = data / "features" / config.encoders[0].store
    (store / "encoder.json").unlink()
    next(store.glob("features-00001-*.json")).unlink()
    shutil.rmtree(folder)
    shutil.copytree(llms[1], folder)
    with pytest.raises(errors.InputError, match="was made with other settings: model_hash is"):
        preparation.prepare(config, data)
    shutil.rmtree(folder)
    shutil.copytree(llms[0], folder)
    preparation.prepare(config, data)
    assert (store / "encoder.json").exists()
