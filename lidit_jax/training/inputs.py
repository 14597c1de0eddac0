"""A prepared data set, checked against the config and opened for training."""

import dataclasses
import pathlib

import numpy as np

from lidit_jax import errors, files
from lidit_jax.data import dataset, filters, pipeline
from lidit_jax.data.dataset import Dataset, FeatureStore
from lidit_jax.models.lidit import LiDiT
from lidit_jax.models.vae import make_codec
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.config import Config


def recipe(config: Config) -> dict:
    """Returns what decides the pictures and captions of a data set, but not its text features."""
    data = config.data
    return {
        "format": dataset.FORMAT,
        "source": data.source,
        "options": data.options,
        "size": list(data.size),
        "bins": data.bins,
        "bin_step": data.bin_step,
        "min_bin": data.min_bin,
        "codec": make_codec(data.codec).identity(),
        "rules": list(data.rules),
        "rules_hash": filters.rules_hash(filters.expand(data.rules)),
        "limit": data.limit,
        "hold_out": data.hold_out,
        "preview": list(data.preview),
    }


def check_store(store: FeatureStore, encoder: EncoderConfig):
    """Raises InputError if the features were written with other settings than `encoder` asks for."""
    wanted = {
        k: getattr(encoder, k)
        for k in ("model", "instruction", "template", "layer", "max_prompt_tokens", "codec")
    }
    dataset.check_equal(store.info, wanted, store.folder)
    for name in ("width", "prefix_len"):
        value = getattr(encoder, name)
        if value and value != store.info[name]:
            raise errors.InputError(
                f"{store.folder} has {name} {store.info[name]}, the config says {value}; set it to 0 or prepare again"
            )


def open_pictures(config: Config, folder: pathlib.Path) -> tuple[Config, pipeline.Reader]:
    """Opens a data set of pictures, in [-1, 1], to train a VAE on.

    Raises InputError where the data set is not the one the config describes, or not of pixels.
    """
    if config.data.codec != "pixels":
        raise errors.InputError(
            f"data.codec is {config.data.codec!r}, but a VAE is trained on pictures; set it to 'pixels'"
        )
    return config, pipeline.Reader(_open(config, folder), [], config.seed, raw=True)


def _open(config: Config, folder: pathlib.Path) -> Dataset:
    opened = Dataset(folder)
    found = files.read_json(folder / "recipe.json", "data set's recipe")
    dataset.check_equal(found, recipe(config), folder)
    return opened


def open_inputs(config: Config, folder: pathlib.Path) -> tuple[Config, pipeline.Reader, dict]:
    """Opens a prepared data set for training.

    Returns the config with the encoders' widths and lengths as measured, the reader, and the
    model's constants. Raises InputError where the data set is not the one the config describes.
    """
    opened = _open(config, folder)
    stores = [opened.features(e.store) for e in config.encoders]
    measured = []
    for encoder, store in zip(config.encoders, stores):
        check_store(store, encoder)
        sizes = {"width": store.info["width"], "prefix_len": store.info["prefix_len"]}
        measured.append(dataclasses.replace(encoder, **sizes, null_len=len(store.null_ZxE)))
    constants = LiDiT.constants(
        opened.mean_C,
        opened.std_C,
        [
            {
                "mean_E": np.asarray(s.info["mean"], np.float32),
                "std_E": np.asarray(s.info["std"], np.float32),
                "prefix_PxE": s.prefix_PxE,
                "null_ZxE": s.null_ZxE,
            }
            for s in stores
        ],
    )
    data = dataclasses.replace(
        config.data, codec_hash=opened.info["codec_identity"].get("hash", "")
    )
    config = dataclasses.replace(config, data=data, encoders=tuple(measured))
    return config, pipeline.Reader(opened, stores, config.seed), constants
