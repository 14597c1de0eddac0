"""The train state, which is created already sharded."""

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
    """step: int32, steps done, including skipped ones. params, ema: f32. constants: not trained."""

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
    """Returns a task's model as `split` does, but made of `jax.ShapeDtypeStruct`s."""
    return split(jax.eval_shape(lambda: task.init(nnx.Rngs(0))))


def abstract(
    task: Task, optimizer: optax.GradientTransformation, mesh: Mesh
) -> tuple[nnx.GraphDef, TrainState]:
    """Returns the model's structure and the state as `jax.ShapeDtypeStruct`s with shardings."""
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
    """Returns a tree of `jax.ShapeDtypeStruct`s with shardings from a tree of like structure."""
    return jax.tree.map(lambda a, s: a.update(sharding=s), abstract, shardings)


def _like_params(opt_state: Any, where: nnx.State, everywhere: NamedSharding) -> Any:
    """Returns the shardings of an optimizer's state: moments are sharded like their parameters.

    A moment is an array whose path ends with a parameter's path.
    """
    known = dict(jax.tree_util.tree_leaves_with_path(where))

    def shard(path, _):
        ends = (path[k:] for k in range(len(path)))
        return next((known[end] for end in ends if end in known), everywhere)

    return jax.tree_util.tree_map_with_path(shard, opt_state)


def shardings_of(like: TrainState) -> TrainState:
    """Returns the sharding of each array of an abstract state."""
    return jax.tree.map(lambda a: a.sharding, like)


def make_initial(
    task: Task, optimizer: optax.GradientTransformation, seed: int, like: TrainState
) -> Callable[[dict], TrainState]:
    """Returns the jitted function that makes a fresh state from the values of the constants.

    They are nested dicts of arrays. It creates every array sharded as in `like`, never whole.
    """

    def init(constants):
        _, params, state = split(task.init(nnx.Rngs(rng.key(seed, "init"))))
        nnx.replace_by_pure_dict(state, constants)
        # A copy: two donated arguments of the step must not share a buffer.
        ema = jax.tree.map(jnp.copy, params)
        opt_state = optimizer.init(params)
        return TrainState(jnp.int32(0), params, ema, state, opt_state, guards.fresh())

    return jax.jit(init, out_shardings=shardings_of(like))
