"""Weights and config go to diffusers and back unchanged; a folder that cannot be used is told why."""

import dataclasses
import json
import shutil

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from lidit_jax.errors import InputError
from lidit_jax.models import vae
from lidit_jax.models.vae import folder
from lidit_jax.models.vae.kl import AutoencoderKL, VAEConfig
from tests.models.vae.layouts import LAYOUTS, rewrite, theirs


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


# --- what cannot be used


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
