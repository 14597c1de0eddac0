"""Tiny but real: a random LLM saved as a folder, a data set of 48 rendered pictures, a run's config."""

import importlib

from configs.base import encoder
from lidit_jax.training.config import Config, parse


def load_config(name: str, argument: str = ""):
    return importlib.import_module(f"configs.{name}").get_config(argument)


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
