"""What a run carries from step to step, and how it is born sharded."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from lidit_jax import rng, sharding
from lidit_jax.models.layers import Constant
from lidit_jax.training import guard as guards
from lidit_jax.training.tasks import Task


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """step: int32, steps done, skipped ones too. params, ema: f32. constants: saved but not trained."""

    step: jax.Array
    params: nnx.State
    ema: nnx.State
    constants: nnx.State
    opt_state: Any
    guard: guards.Guard


def split(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Returns the model's structure, its parameters and its constants."""
    return nnx.split(model, nnx.Param, Constant)


def abstract_model(task: Task) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    """Returns a task's model as `split` does, without values: of `jax.ShapeDtypeStruct`s."""
    return split(jax.eval_shape(lambda: task.init(nnx.Rngs(0))))


def abstract(
    task: Task, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[nnx.GraphDef, TrainState]:
    """Returns the model's structure, and the state as `jax.ShapeDtypeStruct`s with shardings."""
    graphdef, params, constants = abstract_model(task)
    everywhere = sharding.replicated(mesh)
    where = sharding.param_shardings(mesh, params)
    opt_state = jax.eval_shape(optimizer.init, params)
    opt_where = _like_params(opt_state, where, everywhere)
    step = jax.ShapeDtypeStruct((), jnp.int32)
    guard = jax.eval_shape(guards.fresh)
    state = TrainState(step, params, params, constants, opt_state, guard)
    constants_where, guard_where = jax.tree.map(lambda _: everywhere, (constants, guard))
    shardings = TrainState(everywhere, where, where, constants_where, opt_where, guard_where)
    return graphdef, placed(state, shardings)


def placed(abstract: Any, shardings: Any) -> Any:
    """Returns a tree of `jax.ShapeDtypeStruct`s, each with the sharding that has its place."""
    return jax.tree.map(lambda a, s: a.update(sharding=s), abstract, shardings)


def _like_params(opt_state: Any, where: nnx.State, everywhere: NamedSharding) -> Any:
    """Returns the shardings of an optimizer's state: moments live where their parameters do.

    A moment is what has a parameter's path at the end of its own.
    """
    known = dict(jax.tree_util.tree_leaves_with_path(where))

    def shard(path, _):
        ends = (path[k:] for k in range(len(path)))
        return next((known[end] for end in ends if end in known), everywhere)

    return jax.tree_util.tree_map_with_path(shard, opt_state)


def shardings_of(like: TrainState) -> TrainState:
    """Returns where each array of an abstract state lives."""
    return jax.tree.map(lambda a: a.sharding, like)


def initial(
    task: Task,
    optimizer: optax.GradientTransformation,
    seed: int,
    like: TrainState,
    constants: dict,
) -> TrainState:
    """Returns a fresh state, every array created where `like` says: no device holds it whole.

    `constants` are the values of the model's constants, as nested dicts of arrays.
    """
    return initial_program(task, optimizer, seed, like)(constants)


def initial_program(
    task: Task, optimizer: optax.GradientTransformation, seed: int, like: TrainState
) -> Callable[[dict], TrainState]:
    """Returns the jitted function that makes a fresh state from the values of the constants."""

    def init(constants):
        _, params, state = split(task.init(nnx.Rngs(rng.key(seed, "init"))))
        nnx.replace_by_pure_dict(state, constants)
        # Copied: two donated arguments of the step may not be one buffer.
        ema = jax.tree.map(jnp.copy, params)
        opt_state = optimizer.init(params)
        return TrainState(jnp.int32(0), params, ema, state, opt_state, guards.fresh())

    return jax.jit(init, out_shardings=shardings_of(like))
