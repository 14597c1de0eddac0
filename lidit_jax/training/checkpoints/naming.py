"""The layout of a checkpoint: which part of a state is which item, and the names of arrays."""

from typing import Any

import jax
import numpy as np
from flax import nnx, traverse_util

from lidit_jax.training.guard import Guard
from lidit_jax.training.state import TrainState

ALL = ("params", "ema", "constants", "opt_state", "guard")


def items(state: TrainState, names: tuple[str, ...]) -> dict[str, Any]:
    """Returns these fields of a state as Orbax saves them, one item each: nested dicts, or a list.

    Orbax cannot save empty items or empty arrays, such as the features of an absent instruction.
    """
    parts = {name: getattr(state, name) for name in names}
    found = {k: _without_empty(v) for k, v in parts.items() if isinstance(v, nnx.State)}
    pure = {k: v for k, v in found.items() if v}
    if "opt_state" in parts:
        pure["opt_state"] = jax.tree.leaves(state.opt_state)
    if "guard" in parts:
        pure["guard"] = vars(state.guard)
    return pure


def fields(like: TrainState, names: tuple[str, ...], read: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a state from its items; the inverse of `items`."""

    def field(name):
        if name not in read:
            return getattr(like, name)
        if name == "guard":
            return Guard(**read[name])
        if name == "opt_state":
            return jax.tree.unflatten(jax.tree.structure(like.opt_state), read[name])
        filled = jax.tree.map(lambda a: a if a.size else _empty(a), getattr(like, name))
        nnx.replace_by_pure_dict(filled, read[name])
        return filled

    return {name: field(name) for name in names}


def _without_empty(state: nnx.State) -> dict:
    flat = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    return traverse_util.unflatten_dict({path: a for path, a in flat.items() if a.size})


def _empty(like: jax.ShapeDtypeStruct) -> jax.Array:
    return jax.device_put(np.zeros(like.shape, like.dtype), like.sharding)


def by_name(tree: Any) -> dict[str, Any]:
    """Returns the arrays of nested variables, dicts or lists, by names as "dit.time.up.kernel"."""
    tree = nnx.to_pure_dict(tree) if isinstance(tree, nnx.State) else tree
    flat = jax.tree_util.tree_leaves_with_path(tree, is_leaf=is_array)
    return {jax.tree_util.keystr(k, simple=True, separator="."): a for k, a in flat}


def all_by_name(read: dict[str, Any]) -> dict[str, Any]:
    """Returns the arrays of several items by name, such as "params dit.time.up.kernel"."""
    return {f"{item} {name}": a for item, tree in read.items() for name, a in by_name(tree).items()}


def is_array(node: Any) -> bool:
    return hasattr(node, "shape")
