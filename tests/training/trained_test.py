"""A run opened to draw has its kernels in the dtype that multiplies them, and draws the same bits."""

import json
import shutil

import jax
import numpy as np
import pytest
from flax import nnx

from lidit_jax import errors, files, rng, sharding
from lidit_jax.batch import fake
from lidit_jax.diffusion.samplers import SamplerConfig
from lidit_jax.training import state
from lidit_jax.training.checkpoints import reading
from lidit_jax.training.config import SampleConfig
from lidit_jax.training.drawing import draw
from lidit_jax.training.tasks.diffusion import diffusion_task
from lidit_jax.training.trained import as_multiplied, open_to_draw, read_config, to_draw
from tests.same_run import arrays
from tests.training.step_test import LENGTHS, make_config

ONE = sharding.one_device()


def as_if(workdir, folder, part, **changes):
    """The run as one whose config says this, too."""
    copy = shutil.copytree(workdir, folder / "copy")
    saved = json.loads((copy / "config.json").read_text())
    saved[part] |= changes
    files.write_json(copy / "config.json", saved)
    return copy


def test_a_run_is_drawn_by_its_ema(workdir):
    kernel = np.asarray(open_to_draw(workdir, mesh=ONE).ema["dit"]["patchify"]["kernel"][...])
    saved = arrays(workdir, 4)
    (ema,), (params,) = (
        [
            a
            for name, a in saved.items()
            if name.startswith(f"['{item}']['dit']['patchify']['kernel']")
        ]
        for item in ("ema", "params")
    )
    np.testing.assert_array_equal(kernel, ema)
    assert (kernel != params).any()


def test_kernels_are_cast_as_they_are_read_and_nothing_else_is(workdir, tmp_path):
    run = as_if(
        workdir, tmp_path, "model", dtype="bfloat16"
    )  # its parameters were f32 all the same
    exact, cast = (
        open_to_draw(workdir, mesh=ONE),
        open_to_draw(run, mesh=sharding.make_mesh((1, 8, 1))),
    )
    whole, flat = dict(nnx.to_flat_state(exact.ema)), dict(nnx.to_flat_state(cast.ema))
    assert {path[-1] for path in flat} == {"kernel", "bias", "scale", "scale_E"}
    for path, param in flat.items():
        dtype = jax.numpy.bfloat16 if path[-1] == "kernel" else np.float32
        assert param.dtype == dtype and whole[path].dtype == np.float32
        np.testing.assert_array_equal(param[...], np.asarray(whole[path][...]).astype(dtype))
    jax.tree.map(np.testing.assert_array_equal, exact.constants, cast.constants)


def test_a_run_is_not_drawn_with_another_vae(workdir, tmp_path):
    run = as_if(workdir, tmp_path, "data", codec_hash="0f")
    with pytest.raises(errors.InputError, match="pixels is not the VAE that .*copy was trained"):
        open_to_draw(run)


def test_weights_are_copied_to_every_device_as_long_as_their_bytes_allow(workdir, monkeypatch):
    config = read_config(workdir, "diffusion")
    weights = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(to_draw(config, ONE)[2]))
    for room, sizes in ((weights, (8, 1, 1)), (weights - 1, (1, 8, 1))):
        monkeypatch.setattr(sharding, "COPIED", room)
        assert to_draw(config)[0].devices.shape == sizes


@pytest.mark.parametrize("conditioner", [pytest.param("infused", marks=pytest.mark.slow), "direct"])
def test_a_kernel_cast_once_draws_the_bits_of_one_cast_at_every_use(conditioner):
    config = make_config()
    model = config.model
    bf16 = {"dtype": "bfloat16", "conditioner": model.conditioner.__class__(name=conditioner)}
    config = config.__class__(**vars(config) | {"model": model.__class__(**vars(model) | bf16)})
    task = diffusion_task(config, LENGTHS)
    graphdef, ema, constants = state.split(task.init(nnx.Rngs(0)))
    ema = jax.tree.map(lambda a: a + 0.05 * np.sin(np.arange(a.size)).reshape(a.shape), ema)
    ema = jax.tree.map(lambda a: a.astype(np.float32), ema)
    wanted = as_multiplied(*state.abstract_model(task))
    cast = jax.tree.map(lambda a, like: a.astype(like.dtype), ema, wanted)
    sizes = [sum(a.nbytes for a in jax.tree.leaves(tree)) for tree in (ema, cast)]
    assert sizes[1] < 0.55 * sizes[0]
    batch = fake(task.shape)
    text, keys_B = (
        jax.tree.map(lambda a: a[:3], batch.text),
        rng.per_sample(rng.key(0, "x"), np.arange(3)),
    )
    sample = SampleConfig(3.0, SamplerConfig("ddim", 3), 3)

    @jax.jit
    def drawn(ema):
        model = nnx.merge(graphdef, ema, constants)
        return draw(model, config.objective, sample, text, keys_B, task.shape.latent)

    assert np.asarray(drawn(ema)).std() > 0.1
    np.testing.assert_array_equal(drawn(cast), drawn(ema))


def test_a_checkpoint_that_is_not_finite_is_refused_wherever_it_is_put(
    workdir, tmp_path, monkeypatch
):
    def spoiled(folder, digests, items):  # as if that had been saved
        kernel = items["ema"]["dit"]["patchify"]["kernel"]
        items["ema"]["dit"]["patchify"]["kernel"] = kernel.at[-1, -1].set(np.nan)

    monkeypatch.setattr(reading, "_check_digests", spoiled)
    with pytest.raises(errors.InputError, match="its ema holds numbers that are not finite"):
        open_to_draw(workdir, mesh=sharding.make_mesh((1, 8, 1)))
