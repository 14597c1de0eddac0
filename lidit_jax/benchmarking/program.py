"""Programs compiled for devices that need not be present, above all the real train step."""

import dataclasses
import functools
import math
import re
import time

import jax
from jax.sharding import Mesh

from lidit_jax.benchmarking import devices, hlo
from lidit_jax.training import optim, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.tasks.diffusion import DiffusionTask

_SIZE = re.compile(r"([\d.]+)([KMGT])\b")


@dataclasses.dataclass(frozen=True)
class Setting:
    """The settings to change when a model is too large.

    remat: a name of `stacking.REMAT_POLICIES`; micro_batch: samples per device and micro-batch;
    accumulate: micro-batches per update.
    """

    remat: str
    micro_batch: int
    accumulate: int

    def of(self, config: Config) -> Config:
        """Returns the config with this setting; the batch stays. Remat needs a loop over blocks."""
        unroll = config.model.unroll if self.remat == "none" else 1
        return dataclasses.replace(
            config,
            model=dataclasses.replace(config.model, remat=self.remat, unroll=unroll),
            train=dataclasses.replace(config.train, accumulate=self.accumulate),
        )


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program: bytes on each device, and its text.

    arguments: weights or state, and batch, as laid out on the device; temporaries: everything else
    that lives while it runs, a step's gradients included; code: instructions; seconds: compile
    time. A step's new state replaces the old one in place. setting: of a train step.
    """

    setting: Setting | None
    arguments: int
    temporaries: int
    code: int
    seconds: float
    text: str = dataclasses.field(repr=False)

    @property
    def bytes(self) -> int:
        return self.arguments + self.temporaries + self.code

    @functools.cached_property
    def collectives(self) -> hlo.Collectives:
        return hlo.collectives(self.text)


@dataclasses.dataclass(frozen=True)
class TooLarge:
    """A program that the compiler refused because it does not fit the device's memory.

    told: the compiler's message; wanted: the bytes that it names, of temporaries or of everything.
    """

    setting: Setting | None
    told: str
    wanted: int
    seconds: float

    @property
    def bytes(self) -> int:
        return self.wanted


@dataclasses.dataclass(frozen=True)
class Step:
    """The train step of a config on a mesh, described but not compiled."""

    config: Config
    task: DiffusionTask
    mesh: Mesh

    @functools.cached_property
    def like(self) -> state.TrainState:
        """The state as `jax.ShapeDtypeStruct`s with shardings.

        Raises InputError if the mesh does not fit.
        """
        return self._abstract[1]

    @functools.cached_property
    def _abstract(self):
        return state.abstract(self.task, self._optimizer, self.mesh)

    @functools.cached_property
    def _optimizer(self):
        return optim.make_optimizer(self.config.optim, self.config.train.steps)

    def compile(self, setting: Setting) -> Program | TooLarge:
        """Compiles the step with a setting in place of the config's. Nothing is allocated."""
        config = setting.of(self.config)
        task = dataclasses.replace(self.task, model=config.model)
        graphdef, like = state.abstract(task, self._optimizer, self.mesh)
        update = step.make_step(task, graphdef, self._optimizer, config, self.mesh, like)
        return compiled(update.lower(like, task.batch_spec()), self.mesh, setting)


def compiled(
    lowered: jax.stages.Lowered, mesh: Mesh, setting: Setting | None = None
) -> Program | TooLarge:
    """Compiles a program for the mesh's devices. setting: of a train step."""
    start = time.perf_counter()
    try:
        found = lowered.compile(devices.OPTIONS.get(mesh.devices.flat[0].platform))
    except jax.errors.JaxRuntimeError as e:
        if not str(e).startswith("RESOURCE_EXHAUSTED"):
            raise
        told = str(e).removeprefix("RESOURCE_EXHAUSTED: ").splitlines()[0]
        return TooLarge(setting, told, _first_size(told), time.perf_counter() - start)
    memory = found.memory_analysis()
    new = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return Program(
        setting,
        memory.argument_size_in_bytes,
        memory.temp_size_in_bytes + new,
        memory.generated_code_size_in_bytes,
        time.perf_counter() - start,
        found.as_text(),
    )


def state_bytes(like: state.TrainState) -> dict[str, int]:
    """Returns the bytes on each device of a sharded state, by purpose, without padding.

    Gradients, which live only within a step, are as large as the parameters.
    """
    parts = {
        "parameters": like.params,
        "optimizer": like.opt_state,
        "EMA": like.ema,
        "constants": like.constants,
    }
    return {name: sum(map(_bytes_on_device, jax.tree.leaves(part))) for name, part in parts.items()}


def batch_bytes(task: DiffusionTask, mesh: Mesh) -> int:
    """Returns the bytes on each device of one batch, sharded over samples."""
    whole = sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(task.batch_spec()))
    return whole // (mesh.shape["replica"] * mesh.shape["fsdp"])


def _bytes_on_device(a: jax.ShapeDtypeStruct) -> int:
    return math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize


def _first_size(told: str) -> int:
    """Returns the first size in a compiler's message, in bytes; 0 if there is none."""
    found = _SIZE.search(told)
    power = {"K": 1, "M": 2, "G": 3, "T": 4}
    return int(float(found[1]) * 1024 ** power[found[2]]) if found else 0
