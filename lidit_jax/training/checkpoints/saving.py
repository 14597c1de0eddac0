"""From arrays to a checkpoint, written while the training goes on; and which checkpoints are kept."""

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

_LONGEST = 86_400  # seconds of one save. Orbax' own 1,200 are too few for 167 GB over a network of 1 Gbit/s


@dataclasses.dataclass(frozen=True)
class Saved:
    """A checkpoint that is on disk. In seconds: how long the steps waited; when it was on disk, from then on."""

    step: int
    waited: float
    took: float

    def line(self) -> str:
        return f"checkpoint {self.step}: the steps waited {self.waited:.2f} s, on disk after {self.took:.2f} s"

    def scalars(self) -> dict[str, float]:
        return {"checkpoint_waited_s": self.waited, "checkpoint_took_s": self.took}


class _Manager(ocp.CheckpointManager):
    """Orbax' manager, that does not ask JAX whether to stop.

    It asks when a checkpoint is written, of that checkpoint's step, and JAX, which counts on being asked
    at every step in turn (`processes.heeding_sigterm`), would take the processes to be there still.
    """

    def reached_preemption(self, step: int) -> bool:
        return False


class Saver:
    """Saves a run's checkpoints, and keeps those that `train.keep`, `keep_hours` and `keep_best` ask for.

    A context manager. Every process has one, and calls it at the same steps.
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
        """Makes the digests of a state, so that what makes them is compiled before a step waits for it."""
        _digests(naming.items(state, naming.ALL))

    def save(self, state: TrainState, told: dict[str, Any]):
        """Starts saving; returns once the arrays are copied, and writes them in the background.

        told: the entries of `record`, but those that it makes itself.
        """
        begun = time.perf_counter()
        self.wait()
        step, items = int(state.step), naming.items(state, naming.ALL)
        told = record.make(step, told, _digests(items))
        self._records[step] = _judged_by(told)
        args = {item: ocp.args.PyTreeSave(tree) for item, tree in items.items()}
        args[record.ITEM] = record.sealed(told)
        # Without `force` Orbax may leave a step out, and only say so by what it returns.
        self._manager.save(step, args=ocp.args.Composite(**args), force=True)
        self._pending = step, time.perf_counter() - begun, time.time() - time.perf_counter() + begun

    def wait(self):
        """Returns when what is being saved is on disk."""
        self._manager.wait_until_finished()
        self._look()

    def finished(self) -> list[Saved]:
        """Returns the checkpoints that came to be on disk since this was last asked; it does not wait.

        Process 0 alone is told. Raises what went wrong where one could not be written.
        """
        self._look()
        told, self._finished = self._finished, []
        return told

    def _look(self):
        if self._pending is None or self._manager.is_saving_in_progress():
            return
        self._manager.wait_until_finished()  # it has: but if it failed, this raises what was wrong
        step, waited, begun = self._pending
        self._pending = None
        if jax.process_index() == 0:  # others may not see its files yet
            names = ocp.path.step.standard_name_format()
            on_disk = names.find_step(self._manager.directory, step).commit_timestamp.timestamp()
            self._finished.append(Saved(step, waited, on_disk - begun))


def _array_handler() -> ocp.PyTreeCheckpointHandler:
    """Returns what writes arrays, of which those that devices hold copies of are written by one of these.

    Unless they are large: by default Orbax has each device write a slice of its own copy, of whatever
    size, and steps wait until each slice of each array is compiled.
    """
    large = 2**20  # bytes of an array's part on a device
    handler = ocp.type_handlers.ArrayHandler(min_slice_bytes_for_replica_parallel=large)
    registry = ocp.type_handlers.create_type_handler_registry((jax.Array, handler))
    return ocp.PyTreeCheckpointHandler(type_handler_registry=registry)


def check_keep_best(config: TrainConfig, metrics: Collection[str]):
    """Raises InputError unless `train.keep_best` is one of a checkpoint's metrics, or "" for none."""
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
    """Returns what a checkpoint is kept by; of a damaged one None, which whoever reads it will be told."""
    try:
        return _judged_by(record.read(folder))
    except damage.Damaged:
        return None


def _judged_by(told: dict) -> dict:
    """Returns what of a record says whether its checkpoint is kept: a small part of it."""
    return {name: told[name] for name in ("saved", "means")}


@dataclasses.dataclass(frozen=True)
class _Info:
    """What Orbax' policies ask of a checkpoint."""

    step: int
    time: datetime.datetime
    metrics: dict[str, float] | None


class _Policy(policies.PreservationPolicy):
    """Orbax' policies, told of each checkpoint by its own record, which a resumed process finds unchanged.

    Orbax itself has another time for a checkpoint that it saved than for the same one found on disk:
    by that, what was kept for good could be dropped after a restart. One that has no record, as a kill
    leaves what it removes, has no time of its own: it is kept as one of the last ones alone.
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
    """Returns what is least for the best; a mean that is unknown or not finite is never the best."""
    mean = means.get(metric, math.nan)
    if not math.isfinite(mean):
        return math.inf
    return -mean if metric.endswith("psnr") else mean
