"""Orbax: asynchronous checkpoints of the state and the data iterator, and their restoration.

<workdir>/config.json         the run's config, with what `prepare` measured filled in
<workdir>/checkpoints/<step>/ params, ema, constants, opt_state: one item each, so that sampling
                              reads the EMA alone; iterator: the place in the data
"""

import contextlib
import dataclasses
import pathlib
import textwrap
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from flax import nnx

from lidit_jax import errors, files
from lidit_jax.training.config import Config
from lidit_jax.training.guard import Guard
from lidit_jax.training.state import TrainState

# Keys that may differ between the run in a workdir and the config that resumes it: they change
# how far and how fast it goes, in how much memory, and what it shows, but not what it computes.
FREE = {
    "train": (
        "steps", "mesh", "accumulate", "log_every", "save_every", "keep", "preview_every", "watchdog_minutes",
    ),
    "guard": ("patience",),
    "model": ("remat", "unroll"),
    # codec_hash says which codec; bad_records only decides when a run ends.
    "data": ("shards", "workers", "threads", "codec", "bad_records"),
}  # fmt: skip
RESTORE = "put back a copy of it, or train in another folder"  # a run's config that is damaged


def make_manager(workdir: pathlib.Path, keep: int) -> ocp.CheckpointManager:
    """Returns the manager of a run's checkpoints; it keeps the last `keep`."""
    options = ocp.CheckpointManagerOptions(max_to_keep=keep, step_prefix=None, create=True)
    return ocp.CheckpointManager((workdir / "checkpoints").absolute(), options=options)


def save(manager: ocp.CheckpointManager, state: TrainState, iterator_state: dict):
    """Starts saving; returns once the arrays are copied, and writes them in the background."""
    items = {k: ocp.args.StandardSave(_pure(v)) for k, v in _named(state).items()} | {
        "opt_state": ocp.args.StandardSave(jax.tree.leaves(state.opt_state)),
        "guard": ocp.args.StandardSave(vars(state.guard)),
        "iterator": ocp.args.JsonSave(iterator_state),
    }
    manager.save(int(state.step), args=ocp.args.Composite(**items))


def restore(manager: ocp.CheckpointManager, step: int, like: TrainState) -> tuple[TrainState, dict]:
    """Returns the state saved at `step`, each array placed as in `like`, and the iterator's state."""
    names = ("params", "ema", "constants", "opt_state", "guard")
    items = _read(manager, step, _wanted(like, names) | {"iterator": ocp.args.JsonRestore()})
    count = jax.device_put(jnp.int32(step), like.step.sharding)
    return TrainState(step=count, **_parts(like, names, items)), items["iterator"]


def restore_ema(
    workdir: pathlib.Path, ema: nnx.State, constants: nnx.State
) -> tuple[int, nnx.State, nnx.State]:
    """Returns the last step, and its EMA and constants; nothing else is read.

    Both are given as `jax.ShapeDtypeStruct`s, and each array comes in that dtype to that place.
    Raises InputError if the run has no checkpoint.
    """
    like = TrainState(None, ema, ema, constants, None, None)
    step, parts = restore_last(workdir, like, ("ema", "constants"))
    return step, parts["ema"], parts["constants"]


@jax.jit
def _all_finite(tree: Any) -> jax.Array:
    """Whether every number is finite; asked where the arrays are, since no host may hold them all."""
    return jnp.stack([jnp.isfinite(a).all() for a in jax.tree.leaves(tree)]).all()


def last_step(workdir: pathlib.Path) -> int | None:
    """Returns the step of a run's last finished checkpoint, or None if it has none."""
    if not (workdir / "checkpoints").is_dir():
        return None
    with _reader(workdir) as manager:
        return manager.latest_step()


def check_there(workdir: pathlib.Path):
    """Raises InputError if a run has no folder of checkpoints."""
    if not (workdir / "checkpoints").is_dir():
        raise errors.InputError(f"{workdir} holds no checkpoints; train there first")


def restore_last(
    workdir: pathlib.Path, like: TrainState, names: tuple[str, ...]
) -> tuple[int, dict[str, Any]]:
    """Returns the last step and these fields of its `TrainState`, each array placed as in `like`.

    Nothing else is read. Raises InputError if the run has no checkpoint, or if what was read is not
    finite.
    """
    check_there(workdir)
    folder = workdir / "checkpoints"
    with _reader(workdir) as manager:
        step = manager.latest_step()
        if step is None:
            raise errors.InputError(f"{folder} holds no finished checkpoint; train longer")
        parts = _parts(like, names, _read(manager, step, _wanted(like, names)))
        for name in [k for k, part in parts.items() if jax.tree.leaves(part)]:
            if not _all_finite(parts[name]):
                raise errors.InputError(
                    _damaged(folder, step, f"its {name} holds numbers that are not finite")
                )
    return step, parts


def saved_shapes(workdir: pathlib.Path, step: int, item: str) -> dict[str, tuple[int, ...]]:
    """Returns the shape of every array of one item of a checkpoint, by its name; no array is read."""
    return {name: tuple(a.shape) for name, a in by_name(_metadata(workdir, step, item)).items()}


def saved_constants(
    workdir: pathlib.Path, step: int, everywhere: jax.sharding.NamedSharding
) -> dict:
    """Returns a checkpoint's constants as they were saved, nested, whole on every device."""
    if not (workdir / "checkpoints" / str(step) / "constants").is_dir():
        return {}
    like = jax.tree.map(
        lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=everywhere),
        _metadata(workdir, step, "constants"),
        is_leaf=_is_array,
    )
    with _reader(workdir) as manager:
        return _read(manager, step, {"constants": ocp.args.StandardRestore(like)})["constants"]


def by_name(tree: Any) -> dict[str, Any]:
    """Returns the arrays of a nest of models' variables, or of plain dicts, as "dit.time.up.kernel"."""
    tree = _pure(tree) if isinstance(tree, nnx.State) else tree
    flat = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_array)
    return {".".join(str(k.key) for k in path): a for path, a in flat}


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape")


def _metadata(workdir: pathlib.Path, step: int, item: str) -> dict:
    folder = (workdir / "checkpoints").absolute()
    with _readable(folder, step):
        tree = ocp.StandardCheckpointHandler().metadata(folder / str(step) / item).tree
    if tree is None:
        raise errors.InputError(_damaged(folder, step, f"its {item} is missing"))
    return tree


def _reader(workdir: pathlib.Path) -> ocp.CheckpointManager:
    return ocp.CheckpointManager((workdir / "checkpoints").absolute())


def _wanted(like: TrainState, names: tuple[str, ...]) -> dict[str, ocp.args.StandardRestore]:
    """Returns what Orbax is asked for; it has saved no empty part."""
    parts = {k: _pure(v) for k, v in _named(like).items()}
    parts["opt_state"] = jax.tree.leaves(like.opt_state)
    parts["guard"] = vars(like.guard) if like.guard else {}
    return {k: ocp.args.StandardRestore(v) for k, v in parts.items() if k in names}


def _parts(like: TrainState, names: tuple[str, ...], items: Any) -> dict[str, Any]:
    """Returns the fields `names` of a state from the items that `_wanted` asked for."""
    parts = {k: _filled(v, items[k]) for k, v in _named(like).items() if k in names}
    if "opt_state" in names:
        structure = jax.tree.structure(like.opt_state)
        parts["opt_state"] = jax.tree.unflatten(structure, items["opt_state"])
    if "guard" in names:
        parts["guard"] = Guard(**items["guard"])
    return {k: parts.get(k, getattr(like, k)) for k in names}


def _read(manager: ocp.CheckpointManager, step: int, args: dict) -> ocp.args.Composite:
    with _readable(pathlib.Path(manager.directory), step):
        return manager.restore(step, args=ocp.args.Composite(**args))


@contextlib.contextmanager
def _readable(folder: pathlib.Path, step: int) -> Iterator[None]:
    """Raises InputError where a block cannot read the checkpoint of `step`.

    Orbax has no exception of its own for what is damaged: it raises all kinds, a bare `Exception` too.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError:  # of a device, such as one without room
        raise
    except Exception as e:
        why = (str(e).strip("'\"").splitlines() or [""])[0] or type(e).__name__
        raise errors.InputError(_damaged(folder, step, textwrap.shorten(why, 200))) from e


def _damaged(folder: pathlib.Path, step: int, why: str) -> str:
    steps = [int(p.name) for p in folder.iterdir() if p.name.isdecimal()]
    earlier = [s for s in steps if s < step]
    instead = f"remove it to use step {max(earlier)}" if earlier else "remove it to train again"
    return f"checkpoint {folder / str(step)} cannot be read ({why}); {instead}"


def identity(workdir: pathlib.Path, step: int) -> str:
    """Returns a hash that no other checkpoint has: of when this step was saved, to the nanosecond."""
    saved = (workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").read_text()
    return files.digest(saved)[:16]


def claim(workdir: pathlib.Path, config: Config):
    """Makes `workdir` this config's run, or checks that it already is. Process 0 alone writes.

    Raises InputError, naming each key that differs, if it holds another config's run.
    """
    path, wanted = workdir / "config.json", to_json(config)
    if (workdir / "recipe.json").exists():
        raise errors.InputError(
            f"--workdir {workdir} is a data set; give the run a folder of its own"
        )
    saved = workdir / "checkpoints"
    if not path.exists() and saved.is_dir() and any(saved.iterdir()):
        raise errors.InputError(
            f"{saved} holds checkpoints of a run whose config.json is missing; put it back, or give "
            f"another --workdir"
        )
    if path.exists():
        saved = files.read_json(path, "run's config", remedy=RESTORE)
        different = [
            f"{key}: {old!r} there, {new!r} now"
            for key, old, new in differences(saved, wanted)
            if not _is_free(key, config)
        ]
        if different:
            raise errors.InputError(
                f"{workdir} holds another config's run ({'; '.join(different)}); "
                f"give another --workdir, or the same config"
            )
    if jax.process_index() == 0:
        files.write_json(path, wanted)


def to_json(config: Config) -> dict:
    """Returns the config as plain JSON values (tuples are lists)."""

    def plain(value):
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        return [plain(v) for v in value] if isinstance(value, (list, tuple)) else value

    return plain(dataclasses.asdict(config))


def _is_free(key: str, config: Config) -> bool:
    section, *rest = key.split(".")
    if key == "train.steps" and config.optim.decay != "constant":
        return False  # the learning rate depends on it
    return section == "sample" or (bool(rest) and rest[0] in FREE.get(section, ()))


def differences(old: Any, new: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yields what differs between two nests of dicts: the key, as "train.steps", and both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for k in sorted(old.keys() | new.keys()):
            yield from differences(old.get(k), new.get(k), f"{key}.{k}" if key else k)
    elif old != new:
        yield key, old, new


def _named(state: TrainState) -> dict[str, nnx.State]:
    """Returns the parts of a state that are models' variables; Orbax saves no empty one."""
    parts = {"params": state.params, "ema": state.ema, "constants": state.constants}
    return {name: part for name, part in parts.items() if part}


def _pure(state: nnx.State) -> dict:
    return nnx.to_pure_dict(state)


def _filled(like: nnx.State, values: dict) -> nnx.State:
    """Returns the state `like` with these values."""
    filled = jax.tree.map(lambda a: a, like)
    nnx.replace_by_pure_dict(filled, values)
    return filled
