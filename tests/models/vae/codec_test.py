"""A codec is the posterior's mean one way and the clipped picture the other, however many or large."""

import shutil

import diffusers
import jax
import numpy as np
import pytest
from flax import nnx

from lidit_jax import sharding
from lidit_jax.errors import InputError
from lidit_jax.models import vae
from lidit_jax.models.vae import codec as codec_module
from lidit_jax.models.vae import folder
from lidit_jax.models.vae.codec import PICTURES_AT_ONCE, KLCodec
from lidit_jax.models.vae.kl import AutoencoderKL, VAEConfig
from tests.models.vae.layouts import (
    SIZE,
    NoNorm,
    relative_error,
    rewrite,
    their_moments,
    their_picture,
)


def pictures(count, size=SIZE):
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), np.uint8)


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


@pytest.mark.parametrize("size", [(64, 64), (32, 128), (128, 32)])
def test_a_picture_of_no_more_pixels_than_a_tile_is_read_whole(saved, size):
    """So all bins of a stage are: their latents are of one kind."""
    model = folder.load(saved("plain"))
    large, small = KLCodec(model, "", tile=512), KLCodec(model, "", tile=64)
    images = pictures(1, size)
    latents = large.encode(images)
    np.testing.assert_array_equal(small.encode(images), latents)
    np.testing.assert_array_equal(small.decode(latents), large.decode(latents))


def test_fewer_large_pictures_are_read_at_once(saved, monkeypatch):
    monkeypatch.setattr(codec_module, "PIXELS_AT_ONCE", 2 * 8 * 16)
    codec, rows = KLCodec(folder.load(saved("plain")), ""), []
    on_rows = codec._on_rows
    monkeypatch.setattr(codec, "_on_rows", lambda fn, x: rows.append(len(x)) or on_rows(fn, x))
    latents = codec.encode(pictures(5, (8, 16)))
    assert rows == [2, 2, 1]
    codec.decode(latents)
    assert rows == 2 * [2, 2, 1]
    codec.encode(pictures(2, (16, 32)))
    assert rows[6:] == [1, 1]


def test_devices_hold_no_weights_before_there_is_a_picture(copy):
    """As where a run is trained that draws none."""
    held = {id(a) for a in jax.live_arrays()}
    codec = vae.make_codec(str(copy)).on(sharding.make_mesh((1, 8, 1)))
    assert vae.latent_size(codec, SIZE) and codec.identity()
    assert {id(a) for a in jax.live_arrays()} <= held
    codec.encode(pictures(1))
    assert not {id(a) for a in jax.live_arrays()} <= held


@pytest.mark.parametrize("tile", [512, 16])
def test_eight_devices_read_and_decode_as_one(saved, tile):
    """Also eleven pictures, which divide over no eight, and in tiles."""
    one = KLCodec(folder.load(saved("plain")), "", tile=tile)
    eight = one.on(sharding.make_mesh((2, 4, 1)))
    kernel = eight.model.decoder.conv_in.kernel[...]
    assert len(kernel.sharding.device_set) == 8 and kernel.is_fully_replicated
    images = pictures(11, (8, 96))
    latents = one.encode(images)
    np.testing.assert_allclose(eight.encode(images), latents, rtol=1e-4, atol=1e-5)
    found, wanted = eight.decode(latents), one.decode(latents)
    assert found.shape == images.shape and found.dtype == np.uint8
    assert np.abs(found.astype(int) - wanted).max() <= 1


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


def test_an_unknown_codec_lists_what_can_be_named():
    with pytest.raises(InputError, match="'pixel'; known: pixels; .*folder.*config.json"):
        vae.make_codec("pixel")


def test_only_pictures_of_three_channels():
    config = VAEConfig(in_channels=1, block_out_channels=(16,), norm_num_groups=8)
    with pytest.raises(InputError, match="1 channels to 3"):
        KLCodec(AutoencoderKL(config, rngs=nnx.Rngs(0)), "")
