"""The KL autoencoder is diffusers' own, both ways; tiles add up; what cannot be used is told."""

import dataclasses
import json
import shutil
from fractions import Fraction

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from flax import nnx

from lidit_jax import sharding
from lidit_jax.errors import InputError
from lidit_jax.models import vae
from lidit_jax.models.vae import discriminator, folder, perceptual, posterior, tensors
from lidit_jax.models.vae.codec import PICTURES_AT_ONCE, KLCodec
from lidit_jax.models.vae.kl import AutoencoderKL, VAEConfig
from lidit_jax.models.vae.tiling import tiled, windows

SIZE = (24, 40)
LAYOUTS = {  # what is peculiar to each, at a small width
    "sd": dict(latent_channels=4, block_out_channels=(32, 64, 64, 64), layers_per_block=2),
    "flux": dict(
        latent_channels=16, block_out_channels=(16, 32, 32), layers_per_block=1,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159,
    ),
    "plain": dict(block_out_channels=(16, 32), mid_block_add_attention=False),
}  # fmt: skip


def theirs(layout):
    """diffusers' model with every parameter random, norms and biases too."""
    torch.manual_seed(0)
    options = LAYOUTS[layout]
    levels = len(options["block_out_channels"])
    model = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        norm_num_groups=16,
        **options,
    )
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    return model.eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the folder of a layout, saved by diffusers on first use."""
    root = tmp_path_factory.mktemp("vae")

    def path(layout):
        if not (root / layout).exists():
            theirs(layout).save_pretrained(root / layout)
        return root / layout

    return path


@pytest.fixture
def copy(saved, tmp_path):
    """A folder that a test may spoil."""
    return shutil.copytree(saved("plain"), tmp_path / "copy")


def rewrite(path, change):
    """Lets `change` edit the tensors of a folder in place."""
    found = safetensors.torch.load_file(path / folder.WEIGHTS)
    change(found)
    safetensors.torch.save_file(found, path / folder.WEIGHTS)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def pictures(count, size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


def their_moments(model, x_BxHxWx3):
    with torch.no_grad():
        found = model.encode(torch.from_numpy(x_BxHxWx3).permute(0, 3, 1, 2)).latent_dist
    return [v.permute(0, 2, 3, 1).numpy() for v in (found.mean, found.logvar)]


def their_picture(model, z_BxHxWxC):
    with torch.no_grad():
        found = model.decode(torch.from_numpy(z_BxHxWxC).permute(0, 3, 1, 2)).sample
    return found.permute(0, 2, 3, 1).numpy()


def relative_error(ours, wanted):
    return np.abs(np.asarray(ours) - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_encodes_and_decodes_as_diffusers_does(layout, saved):
    reference = diffusers.AutoencoderKL.from_pretrained(saved(layout))
    model = folder.load(saved(layout))
    x_BxHxWx3 = normal(2, *SIZE, 3).clip(-1, 1)
    mean, logvar = their_moments(reference, x_BxHxWx3)
    our_mean, our_logvar = jax.jit(AutoencoderKL.encode)(model, x_BxHxWx3)
    z = normal(*mean.shape)
    picture = jax.jit(AutoencoderKL.decode)(model, z)
    assert relative_error(our_mean, mean) <= 1e-4
    assert relative_error(our_logvar, logvar) <= 1e-4
    assert relative_error(picture, their_picture(reference, z)) <= 1e-4


def test_the_log_variance_is_clipped(saved):
    model = folder.load(saved("plain"))
    model.quant_conv.bias[...] = jnp.array([0, 0, 0, 0, 100, -100, 0, 0], jnp.float32)
    _, logvar = jax.jit(AutoencoderKL.encode)(model, normal(2, *SIZE, 3))
    np.testing.assert_array_equal(logvar[..., 0], 20)
    np.testing.assert_array_equal(logvar[..., 1], -30)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_weight_has_a_place(layout, saved):
    ours = jax.tree.leaves(nnx.state(folder.load(saved(layout)), nnx.Param))
    assert sum(p.size for p in ours) == sum(p.numel() for p in theirs(layout).parameters())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_diffusers_loads_what_is_saved(layout, saved, tmp_path):
    folder.save(folder.load(saved(layout)), tmp_path)
    found, info = diffusers.AutoencoderKL.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    for name, tensor in theirs(layout).state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name
    for key, value in LAYOUTS[layout].items():
        assert found.config[key] == (list(value) if isinstance(value, tuple) else value), key


def test_a_saved_model_comes_back_bit_for_bit(tmp_path):
    config = VAEConfig(block_out_channels=(16, 32), norm_num_groups=8, scaling_factor=0.5)
    model = AutoencoderKL(config, rngs=nnx.Rngs(0))
    folder.save(model, tmp_path)
    again = folder.load(tmp_path)
    assert again.config == config
    jax.tree.map(np.testing.assert_array_equal, nnx.state(again), nnx.state(model))


def test_weights_of_half_the_width_are_read(copy):
    for dtype in (torch.bfloat16, torch.float16):
        model = theirs("plain").to(dtype)
        model.save_pretrained(copy)
        kernel = folder.load(copy).encoder.conv_in.kernel[...]
        assert kernel.dtype == jnp.float32
        wanted = model.encoder.conv_in.weight.detach().float().permute(2, 3, 1, 0)
        np.testing.assert_array_equal(kernel, wanted)


def test_attention_of_old_files_is_read(saved, tmp_path):
    path = shutil.copytree(saved("flux"), tmp_path / "old")
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def age(found):
        for name in [n for n in found if ".to_" in n]:
            tensor = found.pop(name)
            for new_name, old_name in old.items():
                name = name.replace(new_name, old_name)
            found[name] = tensor[:, :, None, None].clone() if tensor.ndim == 2 else tensor

    rewrite(path, age)
    wanted = nnx.state(folder.load(saved("flux")))
    jax.tree.map(np.testing.assert_array_equal, nnx.state(folder.load(path)), wanted)


def test_what_a_config_omits_is_what_diffusers_assumes(tmp_path):
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL", "_other": 1}')
    found = dataclasses.asdict(folder.read_config(tmp_path / "config.json"))
    assumed = diffusers.AutoencoderKL.from_config({}).config
    wanted = {key: assumed[key] for key in found if key != "dtype"}
    assert found == wanted | {"dtype": "float32", "shift_factor": 0.0}


def test_norms_and_softmax_are_f32_and_convolutions_are_not():
    config = VAEConfig(block_out_channels=(16, 32), norm_num_groups=8, dtype="bfloat16")
    model = nnx.eval_shape(lambda: AutoencoderKL(config, rngs=nnx.Rngs(0)))
    picture = jax.ShapeDtypeStruct((1, *SIZE, 3), jnp.float32)
    mean, logvar = jax.eval_shape(AutoencoderKL.encode, model, picture)
    assert mean.dtype == logvar.dtype == jnp.float32
    program = str(jax.make_jaxpr(AutoencoderKL.encode)(model, picture)).splitlines()
    for operation, dtype in {
        " conv_general_dilated": "bf16",
        " exp ": "f32",
        " rsqrt ": "f32",
    }.items():
        lines = [line for line in program if operation in line]
        assert lines and all(f":{dtype}[" in line for line in lines), operation


def test_parameters_of_the_papers_size_are_sharded():
    params = nnx.eval_shape(
        lambda: nnx.state(AutoencoderKL(VAEConfig(), rngs=nnx.Rngs(0)), nnx.Param)
    )
    shardings = sharding.param_shardings(sharding.make_mesh((1, 8, 1)), params)
    sizes = jax.tree.map(lambda p, s: (p.size, s.shard_shape(p.shape)), params, shardings)
    pairs = jax.tree.leaves(sizes, is_leaf=lambda v: isinstance(v, tuple))
    whole, held = sum(n for n, _ in pairs), sum(np.prod(shape) for _, shape in pairs)
    assert whole == 83_819_683
    assert held < whole / 7.5


# --- posterior


def test_posterior_is_that_of_diffusers():
    mean, logvar, noise = (normal(2, 3, 5, 4, seed=n) for n in range(3))
    packed = torch.from_numpy(np.concatenate([mean, logvar], -1)).permute(0, 3, 1, 2)
    wanted = DiagonalGaussianDistribution(packed)
    np.testing.assert_allclose(posterior.kl(mean, logvar), wanted.kl().numpy(), rtol=1e-5)
    std = wanted.std.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(
        posterior.sample(mean, logvar, noise), mean + std * noise, rtol=1e-4, atol=1e-6
    )


def test_a_posterior_equal_to_the_prior_costs_nothing():
    zeros = jnp.zeros((2, 3, 5, 4))
    np.testing.assert_array_equal(posterior.kl(zeros, zeros), 0)


# --- tiles


@pytest.mark.parametrize("size", [16, 64, 72, 96, 104, 112, 200, 1000])
@pytest.mark.parametrize("scale", [Fraction(1, 8), Fraction(2)])
def test_shares_of_tiles_sum_to_one_everywhere(size, scale):
    total = np.zeros(int(size * scale))
    for window in windows(size, 64, 16, scale):
        assert 0 <= window.read.start and window.read.stop <= size
        assert window.read.stop - window.read.start == min(size, 64)
        assert (window.share > 0).all()
        total[window.write] += window.share
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_a_tiles_share_falls_linearly_where_the_next_one_begins():
    first, second = windows(112, 64, 16, Fraction(1))
    np.testing.assert_array_equal(first.share[:48], 1)
    np.testing.assert_allclose(np.diff(first.share[48:]), -1 / 17, rtol=1e-5)
    np.testing.assert_allclose(first.share[48:] + second.share[:16], 1, rtol=1e-6)


def pool(x_BxHxWxI):
    B, H, W, I = x_BxHxWxI.shape  # noqa: E741
    return x_BxHxWxI.reshape(B, H // 8, 8, W // 8, 8, I).mean((2, 4))


class NoNorm(nnx.Module):
    """Stands where a norm was, whose statistics depend on all of a picture."""

    def __call__(self, x):
        return x


def enlarge(x_BxHxWxI):
    return x_BxHxWxI.repeat(8, 1).repeat(8, 2)


@pytest.mark.parametrize("size", [(40, 48), (32, 32), (56, 104), (200, 24)])
@pytest.mark.parametrize(("fn", "scale"), [(pool, Fraction(1, 8)), (enlarge, Fraction(8))])
def test_a_local_function_does_not_see_the_tiles(fn, scale, size):
    shapes, x = set(), normal(2, *size, 3)

    def spy(part):
        shapes.add(part.shape)
        return fn(part)

    found = tiled(spy, x, 3, tile=32, overlap=8, scale=scale)
    np.testing.assert_allclose(found, fn(x), rtol=1e-5, atol=1e-6)
    assert len(shapes) == 1


# --- codec


def test_the_codec_is_the_posteriors_mean_and_the_picture_clipped(saved):
    codec = vae.make_codec(str(saved("plain")))
    reference = diffusers.AutoencoderKL.from_pretrained(saved("plain"))
    images = pictures(2)
    latents = codec.encode(images)
    wanted, _ = their_moments(reference, images.astype(np.float32) / 127.5 - 1)
    assert latents.shape == (2, *vae.latent_size(codec, SIZE)) and latents.dtype == np.float32
    assert relative_error(latents, wanted) <= 1e-4
    decoded = (their_picture(reference, wanted).clip(-1, 1) + 1) * 127.5
    found = codec.decode(wanted)
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, decoded, atol=0.51)


def test_a_batch_of_any_size_is_each_picture_alone(saved):
    codec = vae.make_codec(str(saved("plain")))
    images = pictures(PICTURES_AT_ONCE + 1, (8, 8))
    latents = codec.encode(images)
    alone = np.concatenate([codec.encode(images[i : i + 1]) for i in range(len(images))])
    np.testing.assert_allclose(latents, alone, rtol=1e-4, atol=1e-5)
    assert codec.decode(latents).shape == images.shape


def test_a_large_picture_does_not_see_the_tiles_outside_their_overlaps(saved):
    model = folder.load(saved("plain"))
    for _, module in nnx.iter_modules(model):
        for name in {"norm1", "norm2", "conv_norm_out"} & set(vars(module)):
            setattr(module, name, NoNorm())
    whole, in_tiles = KLCodec(model, "", tile=96), KLCodec(model, "", tile=64)
    images = pictures(1, (64, 96))  # tiles are columns 0-64 and 32-96, 2 pixels to a cell
    latents, tiles = whole.encode(images), in_tiles.encode(images)
    assert relative_error(tiles[:, :, :16], latents[:, :, :16]) < 1e-5
    assert relative_error(tiles[:, :, 32:], latents[:, :, 32:]) < 1e-5
    assert np.abs(tiles - latents)[:, :, 16:32].max() > 0
    pixels, tiles = whole.decode(latents), in_tiles.decode(latents)
    np.testing.assert_array_equal(tiles[:, :, :32], pixels[:, :, :32])
    np.testing.assert_array_equal(tiles[:, :, 64:], pixels[:, :, 64:])


def test_identity_follows_the_weights_not_the_place(saved, copy):
    original = vae.make_codec(str(saved("plain")))
    assert vae.make_codec(str(copy)).identity() == original.identity()
    assert original.identity()["name"] == "kl"
    rewrite(copy, lambda found: found["encoder.conv_in.bias"].add_(1))
    assert vae.make_codec(str(copy)).identity() != original.identity()


def test_a_folder_is_read_once_and_a_pipelines_vae_is_found(saved, tmp_path):
    shutil.copytree(saved("plain"), tmp_path / "vae")
    codec = vae.make_codec(str(tmp_path))
    assert vae.make_codec(str(tmp_path / "vae")) is codec


# --- what cannot be used


def test_an_unknown_codec_lists_what_can_be_named():
    with pytest.raises(InputError, match="'pixel'; known: pixels; .*folder.*config.json"):
        vae.make_codec("pixel")


@pytest.mark.parametrize("name", [folder.CONFIG, folder.WEIGHTS])
def test_a_folder_without_a_file(copy, name):
    (copy / name).unlink()
    with pytest.raises(InputError, match=name):
        vae.make_codec(str(copy))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("_class_name", "AutoencoderTiny"),
        ("act_fn", "relu"),
        ("down_block_types", ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"]),
        ("up_block_types", ["UpDecoderBlock2D"]),
        ("layers_per_block", "two"),
        ("block_out_channels", 64),
        ("block_out_channels", [16, 24]),
        ("norm_num_groups", 0),
    ],
)
def test_a_config_of_another_network(copy, key, value):
    config = json.loads((copy / folder.CONFIG).read_text()) | {key: value}
    (copy / folder.CONFIG).write_text(json.dumps(config))
    with pytest.raises(InputError, match=f"config.json: .*{key}"):
        vae.make_codec(str(copy))


def test_only_pictures_of_three_channels():
    config = VAEConfig(in_channels=1, block_out_channels=(16,), norm_num_groups=8)
    with pytest.raises(InputError, match="1 channels to 3"):
        KLCodec(AutoencoderKL(config, rngs=nnx.Rngs(0)), "")


SPOILED = "encoder.down_blocks.0.resnets.0.conv1.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found.pop(SPOILED), f"no {SPOILED}"),
        (lambda found: found.update({"decoder.extra": torch.zeros(1)}), "has decoder.extra"),
        (lambda found: found.update({SPOILED: torch.zeros(1, 2)}), f"{SPOILED} has shape"),
        (lambda found: found[SPOILED].view(-1)[3:4].fill_(torch.nan), f"{SPOILED} has NaN"),
        (
            lambda found: found.update({SPOILED: found[SPOILED].int()}),
            f"{SPOILED} is of type I32",
        ),
    ],
)
def test_weights_that_do_not_fit(copy, change, told):
    rewrite(copy, change)
    with pytest.raises(InputError, match=told):
        vae.make_codec(str(copy))


def test_a_damaged_file(copy):
    (copy / folder.WEIGHTS).write_bytes(b"no weights")
    with pytest.raises(InputError, match="damaged"):
        vae.make_codec(str(copy))


# --- what trains one


def torch_vgg():
    """VGG16's convolutions as torchvision lays them out, with random weights."""
    torch.manual_seed(0)
    layers, d_in = [], 3
    for width, count in perceptual.STAGES:
        for _ in range(count):
            layers += [torch.nn.Conv2d(d_in, width, 3, padding=1), torch.nn.ReLU()]
            d_in = width
        layers.append(torch.nn.MaxPool2d(2))
    return torch.nn.Sequential(*layers)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """The network, the channels' weights, and a file that has both."""
    path = tmp_path_factory.mktemp("vgg") / "lpips.safetensors"
    network = torch_vgg()
    lins = [torch.rand(1, width, 1, 1) for width, _ in perceptual.STAGES]
    weights = {f"features.{name}": t for name, t in network.state_dict().items()}
    weights |= {f"lin{i}.model.1.weight": lin for i, lin in enumerate(lins)}
    safetensors.torch.save_file(weights, path)
    return network, lins, path


def torch_lpips(network, lins, x_BxHxWx3, y_BxHxWx3):
    """The paper's equation 1, in torch."""
    total, compared = 0.0, iter(lins)
    mean, std = (torch.tensor(v)[:, None, None] for v in (perceptual.MEAN, perceptual.STD))
    x, y = ((torch.from_numpy(v).permute(0, 3, 1, 2) - mean) / std for v in (x_BxHxWx3, y_BxHxWx3))
    for layer in network:
        if isinstance(layer, torch.nn.MaxPool2d):
            f, g = (v / (v.square().sum(1, keepdim=True).sqrt() + 1e-10) for v in (x, y))
            total += ((f - g).square() * next(compared)).sum(1).mean((1, 2))
        x, y = layer(x), layer(y)
    return total.detach().numpy()


@jax.jit
def distance_and_slope(weights, x_BxHxWx3, y_BxHxWx3):
    def total(y_BxHxWx3):
        distance_B = perceptual.lpips(weights, x_BxHxWx3, y_BxHxWx3)
        return distance_B.sum(), distance_B

    slope_BxHxWx3, distance_B = jax.grad(total, has_aux=True)(y_BxHxWx3)
    return distance_B, slope_BxHxWx3


def test_lpips_is_the_papers(vgg):
    network, lins, path = vgg
    x, y = (normal(2, 32, 48, 3, seed=n).clip(-1, 1) for n in range(2))
    found, _ = distance_and_slope(perceptual.load(path), x, y)
    np.testing.assert_allclose(found, torch_lpips(network, lins, x, y), rtol=1e-4)


def test_lpips_of_equal_pictures_is_zero_and_flat(vgg):
    x = normal(2, 32, 48, 3)
    distance, slope = distance_and_slope(perceptual.load(vgg[2]), x, x)
    np.testing.assert_array_equal(distance, 0)
    np.testing.assert_array_equal(slope, 0)


def test_lpips_is_finite_where_features_vanish(vgg):
    weights = jax.tree.map(lambda a: -jnp.abs(a), perceptual.load(vgg[2]))
    distance, slope = distance_and_slope(weights, normal(2, 32, 48, 3), jnp.ones((2, 32, 48, 3)))
    assert np.isfinite(distance).all() and np.isfinite(slope).all()


@pytest.mark.parametrize("name", ["features.28.bias", "lin4.model.1.weight"])
def test_lpips_needs_every_weight(vgg, tmp_path, name):
    found = tensors.read(vgg[2])
    del found[name]
    tensors.write(tmp_path / "lpips.safetensors", found)
    with pytest.raises(InputError, match=name):
        perceptual.load(tmp_path / "lpips.safetensors")


def make_discriminator(width=16):
    return discriminator.PatchDiscriminator(width, dtype=jnp.float32, rngs=nnx.Rngs(0))


def test_a_picture_is_judged_alone():
    critic, x = make_discriminator(), normal(2, 32, 40, 3)
    judge = jax.jit(critic.__call__)
    judged, other = judge(x), judge(np.stack([x[0], 5 * x[1]]))
    assert judged.shape == (2, 2, 3) and judged.dtype == jnp.float32
    np.testing.assert_array_equal(judged[0], other[0])
    assert np.abs(judged[1] - other[1]).max() > 0


def test_a_logit_sees_seventy_pixels():
    critic = make_discriminator()
    critic.norms = nnx.List([NoNorm() for _ in critic.norms])
    x = jnp.ones((1, 96, 96, 3))
    seen = jax.jit(jax.grad(lambda x: critic(x)[0, 5, 5]))(x)[0].any(-1)
    assert (seen.any(0).sum(), seen.any(1).sum()) == (70, 70)


def test_discriminators_parameters_are_sharded():
    params = nnx.eval_shape(lambda: nnx.state(make_discriminator(64), nnx.Param))
    shardings = sharding.param_shardings(sharding.make_mesh((1, 8, 1)), params)
    assert "fsdp" in shardings["convs"][0]["kernel"].get_value().spec


def test_adversarial_losses_rest_where_each_side_is_content():
    real, fake = jnp.full((2, 3, 3), 1.5), jnp.full((2, 3, 3), -2.0)
    np.testing.assert_array_equal(discriminator.discriminator_loss(real, fake), 0)
    np.testing.assert_array_equal(discriminator.discriminator_loss(fake, real), 0.5 * (3 + 2.5))
    np.testing.assert_array_equal(discriminator.generator_loss(fake), 2)
