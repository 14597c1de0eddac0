"""Opens a finished run for use: its config, and its EMA weights as a model on a mesh."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
from flax import nnx
from jax.sharding import Mesh

from lidit_jax import errors, files, sharding
from lidit_jax.models import layers
from lidit_jax.models.vae import make_codec
from lidit_jax.training import checkpoints, state, tasks
from lidit_jax.training.config import Config, build


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run's model at `step`; `identity` is a hash unique to its checkpoint."""

    config: Config
    step: int
    identity: str
    mesh: Mesh
    graphdef: nnx.GraphDef
    ema: nnx.State
    constants: nnx.State


def read_config(workdir: pathlib.Path, task: str | None = None) -> Config:
    """Returns a run's config. Raises InputError if there is none, or if its task is not `task`."""
    what = "run's config (train there first)"
    saved = files.read_json(workdir / "config.json", what, remedy=checkpoints.RESTORE)
    config = build(Config, saved, "config")
    if task and config.task != task:
        raise errors.InputError(
            f"{workdir} is a run of task {config.task!r}; want a run of task {task!r}"
        )
    return config


def open_trained(workdir: pathlib.Path, step: int | None = None) -> Trained:
    """Opens the EMA of a VAE run's last checkpoint, in f32, on one device.

    Raises InputError if `workdir` holds no finished checkpoint, or another task's.
    """
    config, mesh = read_config(workdir, "vae"), sharding.one_device()
    graphdef, *parts = state.abstract_model(tasks.without_data(config))
    return _restored(workdir, config, mesh, graphdef, *_placed(mesh, *parts), step)


def open_to_draw(
    workdir: pathlib.Path,
    codec: str | None = None,
    mesh: Mesh | None = None,
    step: int | None = None,
) -> Trained:
    """Opens the EMA of a diffusion run's checkpoint, for sampling.

    Every array is read straight into its shards, a kernel in the dtype that it is multiplied in:
    sharded arrays are never whole on one device.

    Args:
      workdir: folder of the run.
      codec: replaces the config's.
      mesh: of this process's devices; None lets `sharding.drawing_mesh` choose by the model's size.
      step: of the checkpoint; None = the last.

    Raises InputError if `workdir` holds no finished checkpoint, or none of this step, or another
    task's; if the VAE is not the one that the run was trained with; or if a parameter does not
    divide over the mesh.
    """
    config = read_config(workdir, "diffusion")
    if codec:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, codec=codec))
    _check_codec(config, workdir)
    return _restored(workdir, config, *to_draw(config, mesh), step)


def to_draw(
    config: Config, mesh: Mesh | None = None, devices: Sequence[jax.Device] | None = None
) -> tuple[Mesh, nnx.GraphDef, nnx.State, nnx.State]:
    """Returns a mesh and a model's abstract EMA and constants on it, as sampling keeps them.

    mesh: None lets `sharding.drawing_mesh` choose, of `devices`, by the model's size.
    """
    graphdef, ema, constants = state.abstract_model(tasks.without_data(config))
    ema = as_multiplied(graphdef, ema, constants)
    size = sum(a.size * a.dtype.itemsize for a in jax.tree.leaves(ema))
    mesh = mesh or sharding.drawing_mesh(size, devices)
    return mesh, graphdef, *_placed(mesh, ema, constants)


def as_multiplied(graphdef: nnx.GraphDef, ema: nnx.State, constants: nnx.State) -> nnx.State:
    """Returns abstract parameters, each kernel in the dtype given by `layers.multiplied_in`."""
    wanted = layers.multiplied_in(nnx.merge(graphdef, ema, constants))

    def cast(path, param):
        return param.replace(param.get_value().update(dtype=wanted.get(path, param.dtype)))

    return nnx.from_flat_state([(path, cast(path, v)) for path, v in nnx.to_flat_state(ema)])


def _restored(workdir, config, mesh, graphdef, ema, constants, step=None) -> Trained:
    step, identity, ema, constants = checkpoints.restore_ema(workdir, ema, constants, step)
    return Trained(config, step, identity, mesh, graphdef, ema, constants)


def _placed(mesh: Mesh, ema: nnx.State, constants: nnx.State) -> tuple[nnx.State, nnx.State]:
    everywhere = jax.tree.map(lambda _: sharding.replicated(mesh), constants)
    ema = state.placed(ema, sharding.param_shardings(mesh, ema))
    return ema, state.placed(constants, everywhere)


def _check_codec(config: Config, workdir: pathlib.Path):
    if make_codec(config.data.codec).identity().get("hash", "") != config.data.codec_hash:
        raise errors.InputError(
            f"{config.data.codec} is not the VAE that {workdir} was trained with"
        )
