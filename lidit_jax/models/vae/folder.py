"""A KL autoencoder <-> a folder as diffusers saves it: `config.json` and a safetensors file.

One rule names the weights in both directions: a parameter's path in the model, joined by dots, with
"weight" for what nnx calls kernel or scale; kernels are stored output side first.
"""

import dataclasses
import hashlib
import os
import pathlib
import re
from typing import Any

import jax
import numpy as np
from flax import nnx

from lidit_jax import errors, files
from lidit_jax.models.vae import tensors
from lidit_jax.models.vae.kl import AutoencoderKL, VAEConfig

CONFIG = "config.json"
WEIGHTS = "diffusion_pytorch_model.safetensors"

# Values that these keys of a config.json must have, if present: the one kind of network in `kl`.
_FIXED = {"_class_name": "AutoencoderKL", "act_fn": "silu"}
_BLOCKS = {"down_block_types": "DownEncoderBlock2D", "up_block_types": "UpDecoderBlock2D"}

# What diffusers assumes for keys that config.json lacks, as in the first models.
_OMITTED = VAEConfig(
    latent_channels=4,
    block_out_channels=(64,),
    layers_per_block=1,
    use_quant_conv=True,
    use_post_quant_conv=True,
    scaling_factor=0.18215,
    sample_size=32,
)

# Attention's names in the first files of diffusers -> today's.
_OLD_ATTENTION = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

_LAYOUTS = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # ours (H, W, in, out) -> theirs (out, in, H, W)


def locate(folder: str | os.PathLike) -> pathlib.Path:
    """Returns the folder that has both files: this one, or its `vae` if it is a whole pipeline.

    Raises InputError, naming the file, if one is missing.
    """
    folder = pathlib.Path(folder)
    found = folder if (folder / CONFIG).exists() else folder / "vae"
    if not (found / CONFIG).exists():
        raise errors.InputError(f"{folder} has neither {CONFIG} nor vae/{CONFIG}; want a VAE")
    if not (found / WEIGHTS).exists():
        raise errors.InputError(
            f"{found} has no {WEIGHTS}; save_pretrained of diffusers writes one"
        )
    return found


def digest(folder: str | os.PathLike) -> str:
    """Returns the SHA-256 of config and weights, in hex: the same for copies of a folder."""
    folder, total = locate(folder), hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with open(folder / name, "rb") as f:
            total.update(hashlib.file_digest(f, "sha256").digest())
    return total.hexdigest()


def load(folder: str | os.PathLike, dtype: str = "float32") -> AutoencoderKL:
    """Returns the folder's autoencoder, with `dtype` as compute dtype,
    its weights in the host's memory.

    Raises InputError if a file is missing or damaged, the config is for another network, or a
    weight is missing, unknown, of a wrong shape or not finite.
    """
    folder = locate(folder)
    config = dataclasses.replace(read_config(folder / CONFIG), dtype=dtype)
    path = folder / WEIGHTS
    found = dict(_modern(name, tensor) for name, tensor in tensors.read(path).items())
    graphdef, empty = nnx.split(nnx.eval_shape(lambda: AutoencoderKL(config, rngs=nnx.Rngs(0))))
    filled = [(key, _fill(key, param, found, path)) for key, param in nnx.to_flat_state(empty)]
    if found:
        raise errors.InputError(
            f"{path} has {min(found)}, which the network of {CONFIG} does not have"
        )
    return nnx.merge(graphdef, nnx.from_flat_state(filled))


def save(model: AutoencoderKL, folder: str | os.PathLike):
    """Writes the model for `load` and diffusers; each file is complete or absent."""
    folder = pathlib.Path(folder)
    params = nnx.to_flat_state(nnx.state(model, nnx.Param))
    tensors.write(
        folder / WEIGHTS,
        {
            _name(key): np.asarray(jax.device_get(p[...])).transpose(_LAYOUTS[p.ndim])
            for key, p in params
        },
    )
    files.write_json(folder / CONFIG, _to_json(model.config), sealed=False)


def read_config(path: str | os.PathLike) -> VAEConfig:
    """Reads a `config.json` of diffusers; keys that change nothing here are ignored.

    Raises InputError if it is damaged, or is the config of another network.
    """
    found = {"_class_name": None} | files.read_json(path, "VAE's config", sealed=False)
    _check(found, _FIXED, path)
    known = {f.name: getattr(_OMITTED, f.name) for f in dataclasses.fields(VAEConfig)}
    values = {key: _value(key, found.get(key), default, path) for key, default in known.items()}
    try:
        config = VAEConfig(**values | {"dtype": _OMITTED.dtype})
    except errors.InputError as e:
        raise errors.InputError(f"{path}: {e}") from e
    _check(found, _block_types(config), path)
    return config


def _check(found: dict, wanted: dict, path):
    for key, value in wanted.items():
        if found.get(key, value) != value:
            raise errors.InputError(f"{path}: {key} is {found[key]!r}; want {value!r}")


def _block_types(config: VAEConfig) -> dict:
    return {key: [kind] * len(config.block_out_channels) for key, kind in _BLOCKS.items()}


def _value(key: str, value: Any, default: Any, path) -> Any:
    """Returns a value of the default's type; null and a missing key are the default."""
    if value is None:
        return default
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(_value(key, v, default[0], path) for v in value)
    if type(value) is int and isinstance(default, float):
        return float(value)
    if type(value) is not type(default):
        raise errors.InputError(f"{path}: {key} is {value!r}; want something like {default!r}")
    return value


def _to_json(config: VAEConfig) -> dict:
    """Returns the config as diffusers writes it; the compute dtype is not part of the weights."""
    values = dataclasses.asdict(config)
    del values["dtype"]
    return _FIXED | _block_types(config) | values


def _name(key) -> str:
    *owner, leaf = map(str, key)
    return ".".join([*owner, {"kernel": "weight", "scale": "weight"}.get(leaf, leaf)])


def _modern(name: str, tensor):
    """Returns an attention weight under today's name, and a 1x1 convolution as a matrix."""
    if ".attentions." not in name:
        return name, tensor
    name = re.sub(rf"\.({'|'.join(_OLD_ATTENTION)})\.", lambda m: f".{_OLD_ATTENTION[m[1]]}.", name)
    return name, tensor[:, :, 0, 0] if tensor.shape[2:] == (1, 1) else tensor


def _fill(key, param, found, path):
    """Returns a parameter with its tensor from `found`, in our layout."""
    layout = _LAYOUTS[param.ndim]
    shape = tuple(param.shape[axis] for axis in layout)
    tensor = tensors.take(found, _name(key), shape, path)
    return param.replace(tensor.transpose(np.argsort(layout)))
