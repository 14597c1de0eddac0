"""Saves checkpoints while training continues, and decides which ones are kept."""

import dataclasses
import datetime
import math
import pathlib
import time
from collections.abc import Collection
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from lidit_jax import digests, errors
from lidit_jax.training.checkpoints import damage, naming, record
from lidit_jax.training.config import TrainConfig
from lidit_jax.training.state import TrainState

_LONGEST = 86_400  # seconds per save. Orbax's 1,200 are too few for 167 GB over a 1 Gbit/s network


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint on disk; seconds that the steps waited, and from the start until on disk."""

    step: int
    waited: float
    took: float

    def line(self) -> str:
        return (
            f"checkpoint {self.step}: the steps waited {self.waited:.2f} s, "
            f"on disk after {self.took:.2f} s"
        )

    def scalars(self) -> dict[str, float]:
        return {"checkpoint_waited_s": self.waited, "checkpoint_took_s": self.took}


class _Manager(ocp.CheckpointManager):
    """Orbax's manager, except that it does not ask JAX whether to stop.

    Orbax would ask when it writes a checkpoint, with that checkpoint's step; JAX expects to be
    asked at every step in turn (`processes.heeding_sigterm`) and would take the processes to be
    at that step.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Saver:
    """Saves checkpoints and keeps those that `train.keep`, `keep_hours` and `keep_best` select.

    A context manager. Every process has one and calls it at the same steps.
    """

    def __init__(self, workdir: pathlib.Path, config: TrainConfig):
        folder = (workdir / "checkpoints").absolute()
        self._records = {
            step: _record_or_none(folder / str(step)) for step in damage.steps_in(folder)
        }
        options = ocp.CheckpointManagerOptions(
            create=True,
            preservation_policy=_Policy(config, self._records),
            async_options=ocp.AsyncOptions(timeout_secs=_LONGEST),
        )
        handlers = {item: _array_handler() for item in naming.ALL}
        handlers[record.ITEM] = ocp.JsonCheckpointHandler()
        self._manager = _Manager(folder, options=options, item_handlers=handlers)
        self._pending, self._finished = None, []

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_):
        self._manager.close()

    def rehearse(self, state: TrainState):
        """Computes a state's digests, so that their program compiles before a step waits for it."""
        _digests(naming.items(state, naming.ALL))

    def save(self, state: TrainState, told: dict[str, Any]):
        """Starts saving; returns once the arrays are copied, then writes in the background.

        told: the entries of `record`, except those that `record.make` adds.
        """
        begun = time.perf_counter()
        self.wait()
        step, items = int(state.step), naming.items(state, naming.ALL)
        told = record.make(step, told, _digests(items))
        self._records[step] = _judged_by(told)
        args = {item: ocp.args.PyTreeSave(tree) for item, tree in items.items()}
        args[record.ITEM] = record.sealed(told)
        # Without `force` Orbax may skip a step and report it only in its return value.
        self._manager.save(step, args=ocp.args.Composite(**args), force=True)
        self._pending = step, time.perf_counter() - begun, time.time() - time.perf_counter() + begun

    def wait(self):
        """Waits until what is being saved is on disk."""
        self._manager.wait_until_finished()
        self._look()

    def finished(self) -> list[Saved]:
        """Returns the checkpoints that reached the disk since the last call, without waiting.

        Empty on processes other than 0. Raises the error of a checkpoint that could not be written.
        """
        self._look()
        told, self._finished = self._finished, []
        return told

    def _look(self):
        if self._pending is None or self._manager.is_saving_in_progress():
            return
        self._manager.wait_until_finished()  # it has finished; if it failed, this raises the error
        step, waited, begun = self._pending
        self._pending = None
        if jax.process_index() == 0:  # others may not see its files yet
            names = ocp.path.step.standard_name_format()
            on_disk = names.find_step(self._manager.directory, step).commit_timestamp.timestamp()
            self._finished.append(Saved(step, waited, on_disk - begun))


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns a handler that has one device write each replicated array, unless it is large.

    By default Orbax has each device write a slice of its own copy, whatever the size, and steps
    wait while a program for each slice of each array is compiled.
    """
    large = 2**20  # bytes of an array's shard on a device
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=large)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, handler))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def check_keep_best(config: TrainConfig, metrics: Collection[str]):
    """Raises InputError unless `train.keep_best` is one of a checkpoint's metrics, or "" (none)."""
    if config.keep_best and config.keep_best not in metrics:
        raise errors.unknown_name("metric in train.keep_best", config.keep_best, metrics)


def _digests(items: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Returns the digest of every array: item -> name -> digest."""
    found = digests.of_each(naming.all_by_name(items))
    return {
        item: {name: found[f"{item} {name}"] for name in naming.by_name(tree)}
        for item, tree in items.items()
    }


def _record_or_none(folder: pathlib.Path) -> dict | None:
    """Returns what decides if a checkpoint is kept; None if damaged, as its readers will report."""
    try:
        return _judged_by(record.read(folder))
    except damage.Damaged:
        return None


def _judged_by(told: dict) -> dict:
    """Returns the small part of a record that decides whether its checkpoint is kept."""
    return {name: told[name] for name in ("saved", "means")}


@dataclasses.dataclass(frozen=True)
class _Info:
    """What Orbax's policies need to know about a checkpoint."""

    step: int
    time: datetime.datetime
    metrics: dict[str, float] | None


class _Policy(policies.PreservationPolicy):
    """Orbax's policies, applied to each checkpoint's own record, which is the same after a restart.

    Orbax has one time for a checkpoint that it saved and another for the same one found on disk;
    with those, a checkpoint kept for good could be dropped after a restart. A checkpoint without a
    record, left by a kill during its removal, has no time: it can be kept only as one of the last.
    """

    def __init__(self, config: TrainConfig, records: dict[int, dict | None]):
        self._records = records
        self._latest, self._for_good = policies.LatestN(config.keep), []
        if config.keep_hours:
            self._for_good.append(policies.EveryNSeconds(config.keep_hours * 3600))
        if config.keep_best:
            self._for_good.append(
                policies.BestN(
                    get_metric_fn=lambda means: _rank(config.keep_best, means),
                    reverse=True, n=1, keep_checkpoints_without_metrics=False,
                )
            )  # fmt: skip

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        latest = self._latest.should_preserve(checkpoints, context=context)
        infos = [
            self._info(c.step, told) for c in checkpoints if (told := self._records.get(c.step))
        ]
        asked = [policy.should_preserve(infos, context=context) for policy in self._for_good]
        kept = {info.step for flags in asked for info, keep in zip(infos, flags) if keep}
        return [keep or c.step in kept for c, keep in zip(checkpoints, latest, strict=True)]

    def _info(self, step: int, told: dict) -> _Info:
        saved = datetime.datetime.fromtimestamp(told["saved"], tz=datetime.UTC)
        return _Info(step, saved, told["means"] or None)


def _rank(metric: str, means: dict[str, float]) -> float:
    """Returns a value that is least for the best; an unknown or non-finite mean is never best."""
    mean = means.get(metric, math.nan)
    if not math.isfinite(mean):
        return math.inf
    return -mean if metric.endswith("psnr") else mean
