"""The VAE as a task of the one loop: each loss moves what it should, and a run ends in a codec."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file, save_file

from lidit_jax import autoencoding, batch, errors, files, generation, preparation, rng
from lidit_jax.data import judging
from lidit_jax.data.dataset import Dataset
from lidit_jax.evaluation import SUITES, pictures
from lidit_jax.evaluation.judges.records import Judges
from lidit_jax.models.vae import folder as folders
from lidit_jax.models.vae import make_codec, perceptual
from lidit_jax.models.vae.pixels import to_uint8
from lidit_jax.training import loop
from lidit_jax.training.config import parse
from lidit_jax.training.tasks.autoencoding import vae_task
from lidit_jax.training.telemetry import step_lines
from tests import tiny


def config_of(optimizer="adamw", **vae):
    c = tiny.load_config("vae", "smoke")
    c.data.size = (32, 32)
    c.optim.name = optimizer
    c.vae.model.block_out_channels = (8, 16)  # half as much to compile as with four
    c.vae.update({"discriminator_weight": 0.0} | vae)
    return parse(c)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory):
    """Random weights under the names that LPIPS's have."""
    random, tensors, index, d_in = np.random.default_rng(0), {}, 0, 3
    for stage, (width, count) in enumerate(perceptual.STAGES):
        for _ in range(count):
            kernel = random.normal(size=(width, d_in, 3, 3)) * (2 / (9 * d_in)) ** 0.5
            tensors[f"features.{index}.weight"] = kernel.astype(np.float32)
            tensors[f"features.{index}.bias"] = np.zeros(width, np.float32)
            index, d_in = index + 2, width
        index += 1
        tensors[f"lin{stage}.model.1.weight"] = np.full((1, width, 1, 1), 1 / width, np.float32)
    path = tmp_path_factory.mktemp("vgg") / "vgg.safetensors"
    save_file(tensors, path)
    return str(path)


def gradients(config):
    """Returns each part's metrics, and the gradient by parameter name, on one random batch."""
    task, _ = vae_task(config)
    model = task.init(nnx.Rngs(0))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    images = jnp.tanh(batch.fake(task.shape).latents_BxHxWxC)
    given = batch.Batch(images, (), jnp.arange(len(images)))
    keys_B = rng.per_sample(rng.key(0, "train"), jnp.arange(len(images)))

    def loss(params, rest):  # VGG's weights are arguments: as constants they take longer to compile
        loss_B, parts = task.loss(nnx.merge(graphdef, params, rest), given, keys_B)
        assert {v.shape for v in (loss_B, *parts.values())} == {(len(images),)}
        return loss_B.mean(), parts

    grads, parts = jax.jit(jax.grad(loss, has_aux=True))(params, rest)
    flat = {".".join(map(str, k)): np.asarray(v[...]) for k, v in nnx.to_flat_state(grads)}
    return parts, flat


@pytest.fixture(scope="module")
def plain():
    return gradients(config_of())


def test_the_discriminator_moves_by_its_own_loss_alone(plain):
    """Twice the weight of its opinion changes the autoencoder's gradient, and never its own."""
    once, twice = (gradients(config_of(discriminator_weight=w))[1] for w in (0.5, 1.0))
    for name, grad in once.items():
        if name.startswith("discriminator"):
            np.testing.assert_allclose(twice[name], grad, rtol=1e-4, atol=1e-7)
            # Within the hinge's margins, real and decoded pull at the last bias alike.
            assert np.abs(grad).max() > 0 or name == "discriminator.conv_out.bias"
    assert {n for n in once if n.startswith("vae")} == set(plain[1])
    name = "vae.decoder.conv_out.kernel"
    opinion = once[name] - plain[1][name]
    np.testing.assert_allclose(twice[name] - plain[1][name], 2 * opinion, rtol=1e-2, atol=1e-5)
    assert np.abs(opinion).max() > 1e-4


@pytest.mark.slow
def test_the_perceptual_loss_moves_the_decoder_and_is_saved_as_a_constant(vgg_file, plain):
    config = config_of(perceptual=vgg_file)
    task, constants = vae_task(config)
    assert len(jax.tree.leaves(constants)) == 2 * 13 + 5
    parts, grads = gradients(config)
    assert (np.asarray(parts["perceptual"]) > 0).all() and set(grads) == set(plain[1])
    name = "vae.decoder.conv_out.kernel"
    assert np.abs(grads[name] - plain[1][name]).max() > 1e-5


def test_the_kl_weight_pulls_the_posterior_alone(plain):
    parts, grads = gradients(config_of(kl_weight=10.0))
    np.testing.assert_allclose(grads["vae.decoder.conv_out.kernel"], plain[1]["vae.decoder.conv_out.kernel"], rtol=1e-3, atol=1e-6)  # fmt: skip
    name = "vae.encoder.conv_out.kernel"
    assert np.abs(grads[name] - plain[1][name]).max() > 1e-3
    np.testing.assert_allclose(parts["kl"], plain[0]["kl"], rtol=1e-5)


def test_psnr_is_of_the_pictures_range(plain):
    parts = plain[0]
    assert (np.asarray(parts["psnr"]) < 20).all() and (np.asarray(parts["psnr"]) > 0).all()


def test_text_is_neither_wanted_nor_read():
    c = tiny.load_config("vae", "smoke")
    assert c.text.use == () and parse(c).encoders == ()
    c.task = "diffusion"
    with pytest.raises(errors.InputError, match=r"text.use is \[\]; want one or more encoders"):
        parse(c)
    c.task = "autoencoder"
    with pytest.raises(errors.InputError, match="unknown task 'autoencoder'; known: "):
        parse(c)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A VAE trained four steps, and exported."""
    root = tmp_path_factory.mktemp("vae")
    config = config_of(discriminator_weight=0.1)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=4))
    preparation.prepare(config, root / "train")
    loop.train(config, root / "train", root / "run")
    assert autoencoding.export(root / "run", root / "vae") == 4
    return config, root


def test_a_run_logs_its_losses_and_shows_originals_beside_decoded(run):
    _, root = run
    lines = step_lines.read(root / "run" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4]
    names = {"loss", "l1", "kl", "discriminator", "generator", "psnr", "tokens"}
    assert names <= lines[0].keys() and lines[0]["tokens"] == 8 * 16 * 16
    preview = np.asarray(Image.open(root / "run" / "samples" / "step-0000004.png"))
    assert preview.std() > 1


@pytest.mark.slow
def test_a_vae_is_scored_without_its_discriminator(run, tmp_path):
    config, root = run
    data = dataclasses.replace(config.data, part=judging.HELD_OUT)
    preparation.prepare(dataclasses.replace(config, data=data), tmp_path / "held_out")
    loop.train(config, root / "train", tmp_path / "run", held_out=tmp_path / "held_out")
    *_, last = step_lines.read(tmp_path / "run" / "metrics.jsonl")
    scored = {name: x for name, x in last.items() if name.startswith("held_out_")}
    assert scored.keys() == {f"held_out_{name}" for name in ("loss", "l1", "kl", "psnr")}
    weighed = scored["held_out_l1"] + config.vae.kl_weight * scored["held_out_kl"]
    assert scored["held_out_loss"] == pytest.approx(weighed, rel=1e-6)


@pytest.mark.slow
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(run, tmp_path):
    config, root = run
    shutil.copytree(root / "run", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    loop.train(config, root / "train", tmp_path / "run")
    autoencoding.export(tmp_path / "run", tmp_path / "vae")
    assert folders.digest(tmp_path / "vae") == folders.digest(root / "vae")


def test_a_resumed_run_on_other_pictures_is_refused(run, tmp_path):
    config, root = run
    half, other = (shutil.copytree(root / name, tmp_path / name) for name in ("run", "train"))
    shutil.rmtree(half / "checkpoints" / "4")
    info = files.read_json(other / "dataset.json", "data set")
    files.write_json(other / "dataset.json", info | {"latent_mean": [0.5, 0.5, 0.5]})
    with pytest.raises(errors.InputError, match="is not the data set .*: its latent_mean differs"):
        loop.train(config, other, half)


def test_a_loss_is_its_parts_by_their_weights():
    task, _ = vae_task(config_of(discriminator_weight=0.5, kl_weight=0.1))
    model, x = task.init(nnx.Rngs(0)), jnp.tanh(batch.fake(task.shape).latents_BxHxWxC)[:2]
    keys_B = rng.per_sample(rng.key(0, "train"), jnp.arange(2))

    @jax.jit
    def both(model, x):
        mean, logvar = model.vae.encode(x)
        noise = rng.normal(rng.named_each(keys_B, "posterior"), mean.shape[1:])
        decoded = model.vae.decode(mean + jnp.exp(logvar / 2) * noise)
        found = task.loss(model, batch.Batch(x, (), jnp.arange(2)), keys_B)
        return found, decoded, model.discriminator(x), model.discriminator(decoded)

    (loss_B, parts), decoded, real, fake = both(model, x)
    axes = (1, 2, 3)
    wanted = {
        "l1": jnp.abs(x - decoded).mean(axes),
        "generator": -fake.mean((1, 2)),
        "discriminator": 0.5 * (jax.nn.relu(1 - real) + jax.nn.relu(1 + fake)).mean((1, 2)),
        "psnr": 10 * jnp.log10(2**2 / jnp.square(x - decoded.clip(-1, 1)).mean(axes)),
    }
    for name, value in wanted.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    total = wanted["l1"] + 0.1 * parts["kl"] + 0.5 * wanted["generator"] + wanted["discriminator"]
    np.testing.assert_allclose(loss_B, total, rtol=1e-4)


def test_pictures_too_small_for_a_loss_are_refused(vgg_file, tmp_path):
    small = dataclasses.replace(config_of().data, size=(8, 8))
    preparation.prepare(dataclasses.replace(config_of(), data=small), tmp_path / "set")
    for vae, why in (
        ({"perceptual": vgg_file}, "pictures of 8 px, but the perceptual loss needs 16; .*perceptual=''"),
        ({"discriminator_weight": 0.5}, "the discriminator needs 32; .*discriminator_weight=0"),
    ):  # fmt: skip
        with pytest.raises(errors.InputError, match=why):
            loop.train(
                dataclasses.replace(config_of(**vae), data=small),
                tmp_path / "set",
                tmp_path / "run",
            )


@pytest.mark.slow
def test_a_run_with_a_perceptual_loss_carries_its_weights_and_is_exported_without(
    run, vgg_file, tmp_path
):
    """By Muon, to which a convolution is a matrix too."""
    config = config_of("muon", perceptual=vgg_file)
    loop.train(config, run[1] / "train", tmp_path / "run")
    moved = shutil.copy(vgg_file, tmp_path / "moved.safetensors")
    longer = dataclasses.replace(
        config_of("muon", perceptual=str(moved)),
        train=dataclasses.replace(config.train, steps=4),
    )
    none = dataclasses.replace(longer, vae=dataclasses.replace(longer.vae, perceptual=""))
    with pytest.raises(errors.InputError, match="holds another config's run .vae.perceptual: "):
        loop.train(none, run[1] / "train", tmp_path / "run")
    tensors = load_file(moved)
    save_file(tensors | {"features.0.bias": tensors["features.0.bias"] + 1}, moved)
    with pytest.raises(errors.InputError, match="the constant vgg.* differs from that in .*run"):
        loop.train(longer, run[1] / "train", tmp_path / "run")
    shutil.copy(vgg_file, moved)
    loop.train(longer, run[1] / "train", tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["perceptual"] > 0
    autoencoding.export(tmp_path / "run", tmp_path / "vae")
    assert make_codec(str(tmp_path / "vae")).channels == 16


def test_an_exported_vae_is_a_codec_and_decodes_what_is_held_out(run):
    config, root = run
    grid = autoencoding.reconstruct(
        str(root / "vae"), preparation.references(preparation.held_out(config)), root / "decoded"
    )
    assert np.asarray(Image.open(grid)).std() > 1
    found = pictures.read(root / "decoded")
    assert len(found) == 32 - json.loads((root / "train" / "dataset.json").read_text())["count"]
    scores = SUITES["psnr"](found, None, Judges())
    assert 0 < scores["psnr_worst"] <= scores["psnr"] < 30
    for picture in found:  # a picture beside itself has no error
        (root / "decoded" / "originals" / picture.path.name).write_bytes(picture.path.read_bytes())
    assert SUITES["psnr"](found, None, Judges())["psnr"] > 100


def test_the_units_of_an_exported_vae_are_those_of_its_latents(run, tmp_path):
    _, root = run
    autoencoding.export(root / "run", tmp_path / "vae", root / "train")
    config = json.loads((tmp_path / "vae" / "config.json").read_text())
    codec, seen = make_codec(str(tmp_path / "vae")), Dataset(root / "train")
    images = np.stack([to_uint8(seen.image(row).latent_HxWxC) for row in range(len(seen))])
    latents = (codec.encode(images) - config["shift_factor"]) * config["scaling_factor"]
    assert abs(latents.mean()) < 1e-3 and abs(latents.std() - 1) < 1e-3
    assert json.loads((root / "vae" / "config.json").read_text())["scaling_factor"] == 1.0
    shutil.copytree(root / "train", tmp_path / "latents")
    info = files.read_json(tmp_path / "latents" / "dataset.json", "data set")
    files.write_json(tmp_path / "latents" / "dataset.json", info | {"codec": "VAE"})
    with pytest.raises(errors.InputError, match="holds latents of VAE; want a data set of pixels"):
        autoencoding.export(root / "run", tmp_path / "other", tmp_path / "latents")
    assert not (tmp_path / "other").exists()


def test_pictures_of_two_vaes_are_under_no_manifest(run, tmp_path):
    """Stopped in its second batch, it leaves what another VAE decoded."""
    pictures_of_one = [(("a",), np.zeros((32, 32, 3), np.uint8))]
    autoencoding.reconstruct(str(run[1] / "vae"), pictures_of_one, tmp_path)

    def stopped():
        yield from pictures_of_one * autoencoding.BATCH
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        autoencoding.reconstruct(str(run[1] / "vae"), stopped(), tmp_path)
    with pytest.raises(errors.InputError, match="has no manifest.json"):
        pictures.read(tmp_path)


def test_neither_weights_nor_pictures_are_put_among_a_runs_files(run):
    _, root = run
    before = (root / "run" / "config.json").read_bytes()
    for place, kind in (("run", "a run"), ("train", "a data set")):
        with pytest.raises(errors.InputError, match=f"{place} is {kind}; give a separate folder"):
            autoencoding.export(root / "run", root / place)
        with pytest.raises(errors.InputError, match=f"{place} is {kind}; give a separate folder"):
            autoencoding.reconstruct(str(root / "vae"), [], root / place)
    assert (root / "run" / "config.json").read_bytes() == before
    assert not (root / "run" / "originals").exists()


def test_no_pictures_are_told(run, tmp_path):
    with pytest.raises(errors.InputError, match="there is no picture to encode"):
        autoencoding.reconstruct(str(run[1] / "vae"), [], tmp_path)


def test_a_vae_is_trained_on_pixels_and_drawn_with_by_no_one(run, tmp_path):
    config, root = run
    with pytest.raises(errors.InputError, match="a VAE is trained on pictures"):
        dataclasses.replace(config, data=dataclasses.replace(config.data, codec="x"))
    with pytest.raises(errors.InputError, match="is a run of task 'vae'; want a run of task 'diff"):
        generation.Generator(root / "run")


@pytest.mark.slow
def test_lidit_trains_and_draws_in_the_latents_at_sizes_never_seen(run, llms, tmp_path):
    _, root = run
    c = tiny.config_dict(llms[:1], steps=2, save_every=2, log_every=2, preview_every=2)
    c.data.codec, c.data.size, c.model.patch = str(root / "vae"), (32, 32), 2
    config = parse(c)
    preparation.prepare(config, tmp_path / "data")
    info = json.loads((tmp_path / "data" / "dataset.json").read_text())
    assert len(info["latent_mean"]) == 16 and info["codec_identity"]["name"] == "kl"
    loop.train(config, tmp_path / "data", tmp_path / "run")
    moved = (root / "vae").rename(root / "moved")
    try:
        with pytest.raises(errors.InputError, match="unknown codec"):
            generation.Generator(tmp_path / "run")
        generator = generation.Generator(tmp_path / "run", vae=str(moved))
        assert generator(["a red circle"], [0], size=(48, 80)).shape == (1, 48, 80, 3)
    finally:
        moved.rename(root / "vae")
    save_other(make_codec(str(root / "vae")).model, tmp_path / "other")
    with pytest.raises(errors.InputError, match="is not the VAE that .* was trained with"):
        generation.Generator(tmp_path / "run", vae=str(tmp_path / "other"))


def save_other(model, folder):
    """The same network with other weights."""
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params = jax.tree.map(lambda a: a + 0.5, params)
    folders.save(nnx.merge(graphdef, params, rest), folder)
