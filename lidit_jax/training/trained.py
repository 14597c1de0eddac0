"""A finished run, opened on one device: its config, and its EMA as a model."""

import dataclasses
import pathlib

import jax
from flax import nnx

from lidit_jax import errors, files, sharding
from lidit_jax.models.vae import make_codec
from lidit_jax.training import checkpoints, optim, state, tasks
from lidit_jax.training.config import Config, build


@dataclasses.dataclass(frozen=True)
class Trained:
    """What a run has learned by `step`; `identity` is a hash that no other checkpoint has."""

    config: Config
    step: int
    identity: str
    graphdef: nnx.GraphDef
    ema: nnx.State
    constants: nnx.State


def read_config(workdir: pathlib.Path) -> Config:
    """Returns the config of a run. Raises InputError if there is none."""
    saved = files.read_json(workdir / "config.json", "run's config (train there first)")
    return build(Config, saved, "config")


def open_trained(workdir: pathlib.Path, task: str, codec: str | None = None) -> Trained:
    """Opens the last checkpoint's EMA of a run of this task; `codec` replaces the config's.

    Raises InputError if `workdir` holds no finished checkpoint, or another task's, or if the VAE is
    not the one that it was trained with.
    """
    config = read_config(workdir)
    if codec:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, codec=codec))
    if config.task != task:
        raise errors.InputError(
            f"{workdir} is a run of task {config.task!r}; want one of task {task!r}"
        )
    if task == "diffusion":
        _check_codec(config, workdir)
    optimizer = optim.make_optimizer(config.optim, config.train.steps)
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    graphdef, like = state.abstract(tasks.without_data(config), optimizer, mesh)
    step, ema, constants = checkpoints.restore_ema(workdir, like)
    return Trained(config, step, checkpoints.identity(workdir, step), graphdef, ema, constants)


def _check_codec(config: Config, workdir: pathlib.Path):
    if make_codec(config.data.codec).identity().get("hash", "") != config.data.codec_hash:
        raise errors.InputError(
            f"{config.data.codec} is not the VAE that {workdir} was trained with"
        )
