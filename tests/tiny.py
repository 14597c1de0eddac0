"""Tiny but real: a random LLM saved as a folder, a data set of 48 rendered pictures, a run's config."""

import importlib
import sys
import warnings
from collections.abc import Sequence
from unittest import mock

from absl import flags
from jax.sharding import AbstractMesh, AxisType
from ml_collections import ConfigDict, config_flags

from configs.base import encoder
from lidit_jax import sharding
from lidit_jax.training.config import Config, parse


def load_config(name: str, argument: str = ""):
    return importlib.import_module(f"configs.{name}").get_config(argument)


def config_of_flags(words: Sequence[str]) -> ConfigDict:
    """Returns the config of a command's words, --config among them, with its keys changed as these say."""
    values, command = flags.FlagValues(), ["command", *words]
    config = config_flags.DEFINE_config_file("config", flag_values=values)
    with warnings.catch_warnings(), mock.patch.object(sys, "argv", command):  # where it finds keys
        warnings.simplefilter("ignore", DeprecationWarning)  # ml_collections' own
        values(command, known_only=True)
    return config.value


RUN = {"steps": 4, "save_every": 2, "log_every": 1, "preview_every": 4}


def config_dict(llm_folders: list, **train):
    """A run on 16 px shapes, read by the LLMs in these folders."""
    c = load_config("shapes", "smoke")
    c.data.size = (16, 16)
    c.data.options.count = 48
    c.data.shards = 2
    names = [f"tiny{i}" for i in range(len(llm_folders))]
    for name, folder in zip(names, llm_folders):
        c.text.encoders[name] = encoder(str(folder))
    c.text.use = tuple(names)
    c.model.width, c.model.heads, c.model.depth, c.model.patch = 32, 4, 2, 4
    c.sample.sampler.steps = 4
    c.train.batch_size = 8
    c.train.update(train)
    return c


def config(llm_folders: list, **train) -> Config:
    return parse(config_dict(llm_folders, **train))


def abstract_mesh(sizes: Sequence[int]) -> AbstractMesh:
    """A mesh of devices that are not here."""
    return AbstractMesh(sizes, sharding.MESH_AXES, axis_types=(AxisType.Auto,) * 3)
