"""The sound things that are made wrong: a tiny LLM, a data set and a run."""

import dataclasses
import pathlib

from ml_collections import ConfigDict

from lidit_jax import preparation
from lidit_jax.training import loop
from lidit_jax.training.config import parse
from tests import tiny, tiny_llms


@dataclasses.dataclass(frozen=True)
class World:
    """llm: its folder. data: a data set of 48 pictures of 16 px. run: of two steps, both saved."""

    llm: pathlib.Path
    data: pathlib.Path
    run: pathlib.Path

    def config_dict(self) -> ConfigDict:
        """Returns the run's config, to be changed."""
        c = tiny.config_dict([self.llm], steps=2, save_every=1, log_every=1, preview_every=0)
        c.model.depth = 1
        return c


def make(folder: pathlib.Path) -> World:
    """Returns the world in `folder`, made there if it is not."""
    world = World(folder / "llm", folder / "data", folder / "run")
    if not world.llm.exists():
        tiny_llms.save("llama", world.llm)
    config = parse(world.config_dict())
    preparation.prepare(config, world.data)
    loop.train(config, world.data, world.run)
    return world
