"""Starts a training stage from another run's checkpoint, the last one when the stage first began.

Parameters, EMA and the model's constants are carried over, so that the network keeps reading
latents and features in the units that it was trained in, whatever the new data set's statistics.
Steps, schedule and, unless requested, the optimizer start afresh. An export has no parameters but
its EMA, which becomes both.
"""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lidit_jax import errors, processes
from lidit_jax.training import checkpoints, inputs, origin
from lidit_jax.training import guard as guards
from lidit_jax.training.config import Config
from lidit_jax.training.origin import Origin
from lidit_jax.training.state import TrainState
from lidit_jax.training.trained import read_config

# Constants filled from a data set's statistics; a later stage keeps those of the first.
MEASURED = ("latent_mean_C", "latent_std_C", "mean_E", "std_E")
# Constants filled by an LLM; they may differ by a change of precision.
READ = ("prefix_PxE", "null_ZxE")


def check(config: Config, workdir: pathlib.Path, like: TrainState, constants: dict) -> Origin:
    """Returns the checkpoint of `train.init_from` that the run in `workdir` begins from.

    That is the one it began from earlier, if any, else the last. Raises InputError, naming what
    differs, unless the run can begin from it. constants: the values of the model's constants, from
    the new data set.
    """
    source = origin.source(config)
    with processes.together():  # before Orbax looks there, which all or no processes must do
        try:
            saved = read_config(source)
        except errors.InputError as e:
            raise errors.InputError(f"train.init_from: {e}") from e
    if saved.task != config.task:
        raise errors.InputError(
            f"train.init_from: {source} is a run of task {saved.task!r}, "
            f"and this is one of task {config.task!r}; give another"
        )
    chosen = origin.pinned(config, workdir) or origin.last(config)
    step, where = chosen.step, str(chosen)
    old, new = (_binding(c, config.train.init_optimizer) for c in (saved, config))
    different = "; ".join(
        f"{key}: {a!r} there, {b!r} now" for key, a, b in checkpoints.differences(old, new)
    )
    exported = checkpoints.is_export(source, step)
    _check_shapes(source, step, "ema" if exported else "params", like, where, different)
    if exported and config.train.init_optimizer:
        raise errors.InputError(
            f"train.init_optimizer: {source} is an export, which has no optimizer; "
            "give the run that it was exported from, or train.init_optimizer=False"
        )
    if different:
        raise errors.InputError(
            f"cannot continue from {where} with another config ({different}); give the old values, "
            f"or another train.init_from"
        )
    known = checkpoints.saved_constants(source, step, like.step.sharding)
    check_constants(known, constants, config, where)
    return chosen


def begin(
    config: Config,
    workdir: pathlib.Path,
    chosen: Origin,
    optimizer: optax.GradientTransformation,
    like: TrainState,
) -> TrainState:
    """Returns the first state of a run that `check` accepts, each array sharded as in `like`.

    Raises InputError if the checkpoint is not the one chosen for the run in `workdir`.
    """
    source, names = origin.source(config), ("ema", "constants")
    if not checkpoints.is_export(source, chosen.step):
        names += ("params",)
    if config.train.init_optimizer:
        names += ("opt_state",)
    identity, carried = checkpoints.restore_fields(source, chosen.step, like, names)
    chosen.check(identity, workdir)
    if "params" not in carried:
        carried["params"] = jax.tree.map(jnp.copy, carried["ema"])
    if config.train.init_optimizer:
        carried["opt_state"] = _with_fresh_schedule(carried["opt_state"], like.step.sharding)
    else:
        where = jax.tree.map(lambda a: a.sharding, like.opt_state)
        carried["opt_state"] = jax.jit(optimizer.init, out_shardings=where)(carried["params"])
    if jax.process_index() == 0:
        print(f"beginning from {chosen}")
    guard = jax.jit(guards.fresh, out_shardings=like.step.sharding)()
    return TrainState(step=_zero(like.step.sharding), guard=guard, **carried)


def check_constants(known: dict, found: dict, config: Config, where: str):
    """Raises InputError if a model's constants are not those of the config's LLMs, VGG and data.

    known: the model's own; found: from the data set; as nested dicts or a model's variables.
    Constants filled from a data set's statistics may differ. where: the owner of `known`, for the
    message.
    """
    known, found = checkpoints.by_name(known), checkpoints.by_name(found)
    for i, encoder in enumerate(config.encoders):
        old, new = (_read_by(c, i) for c in (known, found))
        if not inputs.reads_alike(old, new):
            raise errors.InputError(
                f"encoder {encoder.name!r} ({encoder.model}) encodes the instruction or the empty "
                f"prompt differently from LLM number {i + 1} that {where} was trained with; give "
                f"that LLM, with the same template, instruction and layer"
            )
    for name in known.keys() | found.keys():
        if name.split(".")[-1] in MEASURED + READ:
            continue
        if name not in known or name not in found or not np.allclose(known[name], found[name]):
            raise errors.InputError(f"the constant {name} differs from that in {where}")


def _read_by(constants: dict, i: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns LLM i's features of the instruction (not saved if there is none) and of ""."""
    null_ZxE = np.asarray(constants[f"text.{i}.null_ZxE"])
    return np.asarray(constants.get(f"text.{i}.prefix_PxE", null_ZxE[:0])), null_ZxE


def _binding(config: Config, with_optimizer: bool) -> dict:
    """Returns the part of a config that the meaning of its weights depends on, nested like it."""
    whole = checkpoints.to_json(config)

    def without(part: dict, *names: str) -> dict:
        return {k: v for k, v in part.items() if k not in names}

    kept = {}
    if with_optimizer:
        kept["optim"] = {"name": config.optim.name}
    if config.task == "vae":
        return kept | {"vae": {"model": without(whole["vae"]["model"], "dtype")}}
    return kept | {
        "model": without(whole["model"], "dtype", "remat", "unroll"),
        "objective": {k: whole["objective"][k] for k in ("schedule", "prediction")},
        "data": {"codec_hash": config.data.codec_hash},
        "LLMs in text": {"use": len(config.encoders)},
    }


def _check_shapes(
    source: pathlib.Path, step: int, item: str, like: TrainState, where: str, different: str
):
    saved = checkpoints.saved_shapes(source, step, item)
    wanted = {name: tuple(a.shape) for name, a in checkpoints.by_name(like.params).items()}
    for name in [*wanted, *saved]:
        old, new = saved.get(name), wanted.get(name)
        if old != new:
            raise errors.InputError(
                f"parameter {name} is {old or 'absent'} in {where} "
                f"and {new or 'absent'} in this config"
                + (f" ({different})" if different else "")
                + "; give the old values, or another train.init_from"
            )


def _with_fresh_schedule(opt_state, everywhere: jax.sharding.Sharding):
    """Returns the optimizer's state for a new schedule; the bias correction's counts continue."""

    def is_schedule(node) -> bool:
        return isinstance(node, optax.ScaleByScheduleState)

    def fresh(node):
        return node._replace(count=_zero(everywhere)) if is_schedule(node) else node

    return jax.tree.map(fresh, opt_state, is_leaf=is_schedule)


def _zero(everywhere: jax.sharding.Sharding) -> jax.Array:
    return jax.device_put(jnp.int32(0), everywhere)
