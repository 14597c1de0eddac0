"""The intact things that are made wrong: a tiny LLM, a data set and a run."""

import contextlib
import dataclasses
import pathlib

import jax
from ml_collections import ConfigDict

from lidit_jax import preparation
from lidit_jax.training import checkpoints, opening
from lidit_jax.training.config import parse
from tests import tiny, tiny_llms


@dataclasses.dataclass(frozen=True)
class World:
    """llm: its folder. data: a data set of 48 images of 16 px. run: two checkpoints."""

    llm: pathlib.Path
    data: pathlib.Path
    run: pathlib.Path

    def config_dict(self) -> ConfigDict:
        """Returns the run's config, to change."""
        c = tiny.config_dict([self.llm], steps=2, save_every=1, log_every=1, preview_every=0)
        c.model.depth = 1
        return c


def make(folder: pathlib.Path) -> World:
    """Returns the world in `folder`; makes it if it does not exist."""
    world = World(folder / "llm", folder / "data", folder / "run")
    if not world.llm.exists():
        tiny_llms.save("llama", world.llm)
    config = parse(world.config_dict())
    preparation.prepare(config, world.data)
    if checkpoints.last_step(world.run) is None:
        with contextlib.closing(opening.set_up(config, world.data, world.run)) as run:
            _save(run)
    return world


def _save(run: opening.Run):
    """Saves a run's first state as if it had trained: no case depends on what was learned, and a
    step takes long to compile."""
    first = run.first_state()
    place = {"batches": run.batches.get_state(), "data": run.reader.dataset.statistics}
    with checkpoints.Saver(run.workdir, run.config.train) as saver:
        for step in range(1, run.config.train.steps + 1):
            current = dataclasses.replace(first, step=jax.numpy.full_like(first.step, step))
            saver.save(current, place | {"bad": [], "means": {}})
        saver.wait()
