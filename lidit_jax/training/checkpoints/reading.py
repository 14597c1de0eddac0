"""Restores a checkpoint's arrays to their shardings and checks each against its digest."""

import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx, traverse_util

from lidit_jax import digests, errors, processes, sharding
from lidit_jax.training.checkpoints import damage, naming, record
from lidit_jax.training.state import TrainState

GROUP = 2**31  # bytes of arrays read at once when they are then cast


def folder_of(workdir: pathlib.Path, step: int) -> pathlib.Path:
    return (workdir / "checkpoints").absolute() / str(step)


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the steps of a run's finished checkpoints, in order, as process 0 sees them.

    Every process calls this: a network filesystem may show them different ones for a while. Reading
    one then waits until all see it.
    """
    return processes.from_first(steps_here(workdir) if jax.process_index() == 0 else None)


def steps_here(workdir: pathlib.Path) -> list[int]:
    """Like `steps`, but as this process sees them, without waiting for others."""
    return damage.steps_in(workdir / "checkpoints")


def last_step(workdir: pathlib.Path) -> int | None:
    """Returns the step of a run's last finished checkpoint, or None if it has none; see `steps`."""
    return max(steps(workdir), default=None)


def restore(workdir: pathlib.Path, step: int, like: TrainState) -> tuple[TrainState, dict]:
    """Returns the state saved at `step`, sharded as in `like`, and the checkpoint's record.

    Raises Damaged, on every process, if one cannot read it or if it is not what was saved, and
    InputError if it is an export.
    """
    if is_export(workdir, step):
        raise errors.InputError(
            f"{workdir} is an export, whose training cannot be resumed; "
            f"give another --workdir, with train.init_from={workdir}"
        )
    told, items = _read(folder_of(workdir, step), naming.items(like, naming.ALL))
    count = jax.device_put(jnp.int32(step), like.step.sharding)
    return TrainState(step=count, **naming.fields(like, naming.ALL, items)), told


def restore_fields(
    workdir: pathlib.Path, step: int, like: TrainState, names: tuple[str, ...]
) -> tuple[str, dict[str, Any]]:
    """Returns a checkpoint's `record.identity` and these `TrainState` fields, sharded as in `like`.

    Reads nothing else. Raises Damaged if what was read is not what was saved, or is not finite.
    """
    told, items = _read(folder_of(workdir, step), naming.items(like, names), finite=True)
    return record.identity(told), naming.fields(like, names, items)


def is_export(workdir: pathlib.Path, step: int) -> bool:
    """Returns whether a checkpoint lacks its parameters; every process calls this.

    Raises Damaged.
    """
    folder = folder_of(workdir, step)
    return "params" not in damage.agreed(folder, lambda: record.read(folder))["digests"]


def record_of(workdir: pathlib.Path, step: int) -> dict:
    """Returns the record of a checkpoint, as this process sees it. Raises Damaged."""
    return record.read(folder_of(workdir, step))


def identity(workdir: pathlib.Path, step: int) -> str:
    """Returns the `record.identity` of a checkpoint, as this process sees it. Raises Damaged."""
    return record.identity(record_of(workdir, step))


def was_due(workdir: pathlib.Path, step: int) -> bool:
    """Returns whether a checkpoint was saved on schedule, not because the run was stopped.

    As this process sees it; True for a damaged one.
    """
    try:
        return record_of(workdir, step).get("due", step) == step
    except damage.Damaged:
        return True


def restore_ema(
    workdir: pathlib.Path, ema: nnx.State, constants: nnx.State, step: int | None = None
) -> tuple[int, str, nnx.State, nnx.State]:
    """Returns a step, its `record.identity`, its EMA and its constants; reads nothing else.

    ema, constants: `jax.ShapeDtypeStruct`s with the dtype and sharding of each array.
    step: None = the last.

    Arrays are read as saved, checked against their digests and only then cast, about GROUP bytes
    at a time. Raises InputError if the run has no checkpoint, or none of this step, and otherwise
    as `restore_fields`.
    """
    step = chosen(workdir, step)
    folder, names = folder_of(workdir, step), ("ema", "constants")
    like, items = TrainState(None, ema, ema, constants, None, None), {}
    for item, tree in naming.items(like, names).items():
        wanted = traverse_util.flatten_dict(tree)
        saved = naming.by_name(_saved_as(folder, item))
        as_saved = {path: _in_dtype_of(saved.get(_name(path)), a) for path, a in wanted.items()}
        ready = {}
        for group in _groups(as_saved):
            part = {item: traverse_util.unflatten_dict(group)}
            told, read = _read(folder, part, finite=True, how=_some)
            found = traverse_util.flatten_dict(read[item])
            ready |= _cast(found, {path: wanted[path] for path in group})
        items[item] = traverse_util.unflatten_dict(ready)
    parts = naming.fields(like, names, items)
    return step, record.identity(told), parts["ema"], parts["constants"]


def check_item(folder: pathlib.Path, item: str):
    """Reads an item's arrays, GROUP bytes at a time; raises Damaged unless all are as saved."""
    everywhere = sharding.replicated(sharding.one_device())
    arrays = {
        path: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere)
        for path, a in traverse_util.flatten_dict(_saved_as(folder, item)).items()
    }
    for group in _groups(arrays):
        _read(folder, {item: traverse_util.unflatten_dict(group)}, finite=True, how=_some)


def saved_shapes(workdir: pathlib.Path, step: int, item: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of a checkpoint's item, by name; reads no arrays."""
    found = naming.by_name(_saved_as(folder_of(workdir, step), item))
    return {name: tuple(a.shape) for name, a in found.items()}


def saved_constants(
    workdir: pathlib.Path, step: int, everywhere: jax.sharding.NamedSharding
) -> dict:
    """Returns a checkpoint's constants as they were saved, nested, replicated on every device."""
    folder = folder_of(workdir, step)
    told = damage.agreed(folder, lambda: record.read(folder))
    if "constants" not in told["digests"]:
        return {}
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere),
        _saved_as(folder, "constants"),
        is_leaf=naming.is_array,
    )
    return _read(folder, {"constants": like})[1]["constants"]


def chosen(workdir: pathlib.Path, step: int | None = None) -> int:
    """Returns a finished checkpoint's step: this one, or the last; see `steps`.

    Raises InputError, on every process, if there is none.
    """
    if not processes.from_first((workdir / "checkpoints").is_dir()):
        raise errors.InputError(f"{workdir} holds no checkpoints; train there first")
    there = steps(workdir)
    if not there:
        raise errors.InputError(
            f"{workdir / 'checkpoints'} holds no finished checkpoint; train longer"
        )
    if step is not None and step not in there:
        raise errors.InputError(
            f"{workdir / 'checkpoints'} has no checkpoint of step {step}; it has "
            f"{', '.join(map(str, there))}"
        )
    return there[-1] if step is None else step


def metadata(folder: pathlib.Path, item: str) -> Any:
    """Returns one item's nested arrays, each with shape and dtype. No process waits for another."""
    with damage.blamed(folder):
        tree = ocp.StandardCheckpointHandler().metadata(folder / item).tree
        if tree is None:
            raise damage.Damaged(folder, f"its {item} is missing")
        return tree


def _saved_as(folder: pathlib.Path, item: str) -> Any:
    """Returns `metadata`; if it is damaged for one process, all raise Damaged."""
    return damage.agreed(folder, lambda: metadata(folder, item))


def _name(path: tuple) -> str:
    """Returns a path as `naming.by_name` writes it; Orbax has strings for numbers in paths."""
    return ".".join(map(str, path))


def _in_dtype_of(saved: Any | None, like: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """Returns `like` in the saved dtype; if nothing was saved, Orbax reports it."""
    return like if saved is None else like.update(dtype=saved.dtype)


_How = Callable[[Any], ocp.args.CheckpointArgs]


def _whole(like: Any) -> ocp.args.CheckpointArgs:
    return ocp.args.StandardRestore(like)


def _some(like: Any) -> ocp.args.CheckpointArgs:
    """Restores only some arrays of an item."""
    args = ocp.checkpoint_utils.construct_restore_args(like)
    return ocp.args.PyTreeRestore(like, restore_args=args, partial_restore=True)


def _read(
    folder: pathlib.Path, wanted: dict[str, Any], finite: bool = False, how: _How = _whole
) -> tuple[dict, dict[str, Any]]:
    """Returns the record of the checkpoint in `folder` and the wanted items, as they were saved.

    wanted: item -> `jax.ShapeDtypeStruct`s with shardings; finite: reject numbers that are not.
    Raises, on every process, Damaged if one cannot read it or if it is not what was saved, and
    Passing if they have read different checkpoints.
    """

    def here():
        told = record.read(folder)
        args = ocp.args.Composite(**{item: how(like) for item, like in wanted.items()})
        with _alone(folder.parent) as manager:
            return told, dict(manager.restore(int(folder.name), args=args).items())

    told, items = damage.agreed(folder, here)
    _check_same(folder, told)
    _check_digests(folder, told["digests"], items)
    if finite:
        _check_finite(folder, items)
    return told, items


def _check_same(folder: pathlib.Path, told: dict):
    """Raises Passing, on every process, unless all have read the same record."""
    found = processes.told_by_each(record.identity(told))
    other = [i for i, identity in enumerate(found) if identity != found[0]]
    if other:
        raise errors.Passing(
            f"{folder} is not the same checkpoint for process {other[0]} as for process 0; start "
            f"again when all see the same"
        )


def _alone(folder: pathlib.Path) -> ocp.CheckpointManager:
    """Returns a manager that waits for no other process, so that one may fail to read alone."""
    me = jax.process_index()
    alone = ocp.options.MultiprocessingOptions(
        primary_host=me, active_processes={me}, barrier_sync_key_prefix=f"reader{me}"
    )
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone)
    return ocp.CheckpointManager(folder, options=options)


def _check_digests(folder: pathlib.Path, saved: dict[str, dict[str, str]], items: dict[str, Any]):
    """Raises Damaged, naming an array, unless every copy of every array has its saved digest."""
    found = digests.of_copies(naming.all_by_name(items))
    known = {f"{item} {name}": text for item, part in saved.items() for name, text in part.items()}
    different = [name for name, texts in found.items() if set(texts) != {known.get(name)}]

    def check():
        if different:
            more = f", and {len(different) - 1} more arrays are not" if len(different) > 1 else ""
            raise damage.Damaged(folder, f"{different[0]} is not what was saved{more}")

    damage.agreed(folder, check)  # each process has looked at its own copies


def _check_finite(folder: pathlib.Path, items: dict[str, Any]):
    for item, tree in items.items():
        if not _all_finite(tree):
            raise damage.Damaged(folder, f"its {item} holds numbers that are not finite")


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    """Whether every number is finite; computed on the devices, since no host may hold them all."""
    return jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(tree)]).all()


def _groups(arrays: dict[tuple, Any]) -> Iterator[dict[tuple, Any]]:
    """Yields arrays in groups of at most GROUP bytes; a larger array is a group by itself."""
    group, size = {}, 0
    for path, a in arrays.items():
        own = a.size * a.dtype.itemsize
        if group and size + own > GROUP:
            yield group
            group, size = {}, 0
        group[path], size = a, size + own
    if group:
        yield group


def _cast(arrays: dict[tuple, jax.Array], like: dict[tuple, Any]) -> dict[tuple, jax.Array]:
    """Returns each array with the dtype and sharding of `like`."""
    other = [path for path, a in arrays.items() if a.dtype != like[path].dtype]
    if not other:
        return arrays

    def cast(found):
        return [a.astype(like[path].dtype) for path, a in zip(other, found)]

    where = [like[path].sharding for path in other]
    ready = jax.jit(cast, out_shardings=where)([arrays[path] for path in other])
    return arrays | dict(zip(other, ready))
