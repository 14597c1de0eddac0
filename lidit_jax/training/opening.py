"""Sets up a run: checks its config against data, mesh and folder; makes its first or last state."""

import dataclasses
import pathlib
import time
from typing import IO

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from clu import parameter_overview
from flax import nnx
from jax.sharding import Mesh

from lidit_jax import errors, files, processes, sharding
from lidit_jax.batch import Batch
from lidit_jax.data import pipeline
from lidit_jax.training import checkpoints, handover, optim, origin, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.inputs import open_held_out
from lidit_jax.training.tasks import Task, open_run
from lidit_jax.training.telemetry import ledger, metrics

# Files that a run writes with `files.atomic`; names are glob patterns.
WRITTEN = (
    "config.json", origin.NAME, metrics.NAME, ledger.NAME, "heartbeats/*.json", "samples/*.png",
)  # fmt: skip
# Seconds for a stopping process to save and exit, or for a network filesystem to notice that a
# process's machine is gone.
WAIT = 180.0


@dataclasses.dataclass(frozen=True)
class Run:
    """The parts of a run, before it has a state.

    config: with measured sizes; constants: the model's, from the data set; batches: this process's
    rows, from the first on; like: the abstract state; lock: process 0's, on a workdir being trained
    in, until `close`; held_out: reads the held-out data set, if there is one.
    """

    config: Config
    data: pathlib.Path
    workdir: pathlib.Path
    task: Task
    reader: pipeline.Reader
    batches: pipeline.Batches
    constants: dict
    mesh: Mesh
    optimizer: optax.GradientTransformationExtraArgs
    graphdef: nnx.GraphDef
    like: state.TrainState
    lock: IO | None = None
    held_out: pipeline.Reader | None = None

    def close(self):
        if self.lock:
            self.lock.close()

    def update(self) -> step.Step:
        """Returns the train step, not yet compiled."""
        return step.make_step(
            self.task, self.graphdef, self.optimizer, self.config, self.mesh, self.like
        )

    def score(self) -> step.Score:
        """Returns the program that scores held-out images, not yet compiled."""
        return step.make_score(self.task, self.graphdef, self.mesh, self.like)

    def keys(self, step: int) -> list[str]:
        """Returns the keys of a step's samples, over all processes. Steps count from 1."""
        order = pipeline.Order(self.reader, self.config.train.batch_size)
        samples = order.samples(step - 1)  # one by one: a global batch may exceed a host's memory
        return [self.reader.key(self.reader.used(*sample)) for sample in samples]

    def batch(self, step: int) -> Batch:
        """Returns this process's rows of a step's batch. Steps count from 1."""
        order = pipeline.Order(self.reader, self.config.train.batch_size)
        places = sharding.rows_here(self.mesh, self.config.train.batch_size)
        return self.reader.drawn(order.samples(step - 1, places), places).batch

    def metrics(self) -> list[str]:
        """Returns the names of a checkpoint's metrics: of its steps, and of the held-out set."""
        t = self.config.train
        spec = self.reader.specs(t.batch_size, 0, 1)[0]
        told = jax.eval_shape(self.update(), self.like, spec)[1]
        names = [name for name, a in told.items() if jnp.issubdtype(a.dtype, jnp.floating)]
        if self.held_out:
            names += jax.eval_shape(self.score(), self.like, spec)[1]
        return names

    def first_state(self) -> state.TrainState:
        """Returns the state at step 0: random, or from another run's weights (`train.init_from`).

        Raises InputError if it is not recorded from which of the other run's checkpoints this run
        began, or if that checkpoint no longer exists.
        """
        if self.config.train.init_from:
            chosen = origin.pinned(self.config, self.workdir)
            if chosen is None:
                raise errors.InputError(
                    f"{self.workdir / origin.NAME}, which says from which checkpoint of "
                    f"{self.config.train.init_from} the run began, is missing; put it back"
                )
            return handover.begin(self.config, self.workdir, chosen, self.optimizer, self.like)
        initial = state.make_initial(self.task, self.optimizer, self.config.seed, self.like)
        return initial(self.constants)

    def saved_state(self) -> checkpoints.Found:
        """Restores the last intact checkpoint, and the position in the data.

        Raises InputError if it was trained on other data or with another LLM, or if none is intact.
        """
        found = checkpoints.last_whole(self.workdir, self.like)
        current = found.state
        self.check_data(found.record)
        if self.config.train.init_from or self.config.task == "vae":
            handover.check_constants(
                current.constants, self.constants, self.config, str(self.workdir)
            )
        else:
            known, measured = map(checkpoints.by_name, (current.constants, self.constants))
            check_same_data(known, measured, self.data)
        self.batches.set_state(found.record["batches"])
        return found

    def check_data(self, told: dict):
        """Raises InputError if a checkpoint's record names other data, or other held-out data when
        `train.keep_best` goes by its losses.
        """
        check_same_data(told["data"], self.reader.dataset.statistics, self.data)
        known = told.get("held_out")
        by_held_out = self.config.train.keep_best.startswith(step.HELD_OUT)
        if by_held_out and self.held_out and known not in (None, self.held_out.dataset.statistics):
            raise errors.InputError(
                f"{self.held_out.dataset.folder} is not the --held_out that train.keep_best used "
                f"so far, and their losses do not compare; give the old one, or another --workdir"
            )


def set_up(
    config: Config,
    data: pathlib.Path,
    workdir: pathlib.Path,
    held_out: pathlib.Path | None = None,
    write: bool = True,
) -> Run:
    """Returns a run that owns `workdir` from now on; removes what killed processes left there.

    held_out: a data set that is not trained on. write: False only checks and changes nothing there;
      nothing is saved, so `train.keep_best` may name a held-out metric without a held-out set.

    Raises InputError, on every process alike and before anything is written, if config, data, mesh
    and workdir do not fit, or if another process still trains there after `WAIT`.
    """
    with processes.together():
        config, task, reader, constants = open_run(config, data)
        scored = open_held_out(config, held_out, reader) if held_out else None
    t = config.train
    mesh = sharding.make_mesh(t.mesh)
    processes.connect(mesh)
    sharding.check_batch(mesh, t.batch_size, t.accumulate)
    rows = sharding.rows_here(mesh, t.batch_size)
    batches = pipeline.batches(reader, t.batch_size, rows=rows, threads=config.data.threads)
    optimizer = optim.make_optimizer(config.optim, t.steps)
    graphdef, like = state.abstract(task, optimizer, mesh)
    # Orbax looks into a folder with all processes or none: first, all must see the same one.
    with processes.sharing(workdir), processes.together():
        _claim(workdir, config, like, constants, write=False)
        run = Run(
            config=config, data=data, workdir=workdir, task=task, reader=reader, batches=batches,
            constants=constants, mesh=mesh, optimizer=optimizer, graphdef=graphdef, like=like,
            held_out=scored,
        )  # fmt: skip
        if t.keep_best and write:
            if t.keep_best.startswith(step.HELD_OUT) and not held_out:
                raise errors.InputError(
                    f"train.keep_best is {t.keep_best!r}, which requires --held_out=FOLDER"
                )
            checkpoints.check_keep_best(t, run.metrics())
    if not write:
        return run
    run = dataclasses.replace(run, lock=_lock(workdir))
    try:
        with processes.together():
            # Check again: whoever held the lock until now may have begun another run there.
            begins_from = _claim(workdir, config, like, constants, write=True)
            if jax.process_index() == 0:
                _remove_leftovers(workdir)
                if begins_from:
                    origin.pin(workdir, begins_from)
    except BaseException:
        run.close()
        raise
    return run


def _claim(
    workdir: pathlib.Path, config: Config, like: state.TrainState, constants: dict, write: bool
) -> origin.Origin | None:
    """Makes `workdir` this run's, or only checks that it may be.

    Returns the checkpoint of `train.init_from` to begin from, if any. Raises InputError if
    `workdir` is another run's, or if the run cannot begin from that checkpoint.
    """
    begins_from = None
    if config.train.init_from and checkpoints.last_step(workdir) is None:
        begins_from = handover.check(config, workdir, like, constants)
    checkpoints.claim(workdir, config, write)
    return begins_from


def _lock(workdir: pathlib.Path) -> IO | None:
    """Returns process 0's lock on a workdir, once any other training releases it; all must call it.

    Raises InputError if it is not released within `WAIT`.
    """
    file, end, told = None, time.monotonic() + WAIT, False
    while True:  # polls, so that no process waits for long in a collective
        with processes.together():
            if jax.process_index() == 0:
                workdir.mkdir(parents=True, exist_ok=True)
                file = file or (workdir / "lock").open("w")
                free = files.take_lock(file)
                if not free and time.monotonic() >= end:
                    raise errors.InputError(
                        f"another process trains in {workdir} now; wait for it, or stop it. If "
                        f"there is none, its machine is gone and the filesystem (NFS 3) holds its "
                        f"lock: remove {file.name}"
                    )
        if processes.from_first(jax.process_index() == 0 and free):
            return file
        if jax.process_index() == 0 and not told:
            print(
                f"another process trains in {workdir}; waiting {WAIT:.0f} s for it to end",
                flush=True,
            )
        told = True
        time.sleep(1)


def _remove_leftovers(workdir: pathlib.Path):
    """Removes unfinished files of killed processes; none may be writing now."""
    for name in WRITTEN:
        files.remove_leftovers(workdir / name)
    checkpoints.remove_unfinished(workdir)


def describe(current: state.TrainState, mesh: jax.sharding.Mesh, config: Config):
    """Prints a summary of the model and mesh, and logs every parameter's shape."""
    steps, warmup = config.train.steps, config.optim.warmup_steps
    if warmup >= steps:
        print(
            f"the learning rate is still warming up when the run ends: optim.warmup_steps is "
            f"{warmup}, and train.steps {steps}"
        )
    count = sum(a.size for a in jax.tree.leaves(current.params))
    print(
        f"{count:,} parameters, batch {config.train.batch_size}, "
        f"mesh {dict(mesh.shape)} on {jax.devices()[0].device_kind}",
        flush=True,
    )
    if logging.level_info():
        parameter_overview.log_parameter_overview(
            nnx.to_pure_dict(current.params), include_stats="sharding"
        )


def check_same_data(known: dict, found: dict, data: pathlib.Path):
    """Raises InputError if a run was trained on features or latents with other statistics.

    known, found: the run's and the data set's, arrays by name.
    """

    def same(name) -> bool:
        a, b = (np.asarray(values.get(name)) for values in (known, found))
        return a.shape == b.shape and np.allclose(a, b, rtol=1e-5)

    different = [name for name in sorted(known.keys() | found.keys()) if not same(name)]
    if different:
        raise errors.InputError(
            f"{data} is not the data set that the run was trained on: its {different[0]} differs "
            f"from the checkpoint's; give the old --data, or another --workdir"
        )
