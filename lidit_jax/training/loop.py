"""The run: from a data set to checkpoints, started or resumed, the same either way."""

import pathlib
import time

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from flax import nnx

from lidit_jax import errors, files, processes, rng, sharding
from lidit_jax.batch import Batch
from lidit_jax.data import pipeline
from lidit_jax.models.vae import Codec, make_codec
from lidit_jax.training import checkpoints, handover, optim, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.metrics import Metrics, check_finite
from lidit_jax.training.tasks import Task, open_run
from lidit_jax.training.tracing import Tracer


def train(
    config: Config,
    data: pathlib.Path,
    workdir: pathlib.Path,
    profile: tuple[int, int] | None = None,
):
    """Trains to `config.train.steps`, from the last checkpoint in `workdir` if there is one.

    Args:
      config: the run.
      data: a folder that `prepare` made.
      workdir: gets config.json, checkpoints/, tensorboard/, metrics.jsonl and samples/.
      profile: first and last step whose trace process 0 writes to profile/.

    Raises InputError, before anything is written, where config, data, mesh and workdir do not fit;
    and `processes.Stopped`, its state saved, where the scheduler wants its machines back.
    """
    with processes.together():
        opened = open_run(config, data)
    config, task, reader, constants = opened.config, opened.task, opened.reader, opened.constants
    t = config.train
    mesh = sharding.make_mesh(t.mesh)
    processes.connect(mesh)
    sharding.check_batch(mesh, t.batch_size, t.accumulate)
    optimizer = optim.make_optimizer(config.optim, t.steps)
    graphdef, like = state.abstract(task, optimizer, mesh)
    chief = jax.process_index() == 0
    batches = pipeline.batches(reader, t.batch_size, rows=sharding.rows_here(mesh, t.batch_size))
    tracer = Tracer(workdir / "profile", profile if chief else None, t.steps)
    with processes.together():
        if t.init_from and checkpoints.last_step(workdir) is None:
            handover.check(config, like, constants)
        checkpoints.claim(workdir, config)
    processes.check_shared(workdir)
    with checkpoints.make_manager(workdir, t.keep) as manager:
        done = manager.latest_step()
        if done is not None and done >= t.steps:
            if chief:
                print(f"{workdir} is already trained to step {done}")
            return
        if done is None and t.init_from:
            current, done = handover.begin(config, optimizer, like), 0
        elif done is None:
            current, done = state.initial(task, optimizer, config.seed, like, constants), 0
        else:
            current, place = checkpoints.restore(manager, done, like)
            if t.init_from:
                check_same_data(place["data"], reader.dataset.statistics, data)
                handover.check_constants(current.constants, constants, config, str(workdir))
            else:
                known, found = map(checkpoints.by_name, (current.constants, constants))
                check_same_data(known, found, data)
            batches.set_state(place["batches"])
        if chief:
            if done:
                print(f"resuming {workdir} at step {done}")
            describe(current, mesh, t.batch_size)
        update = step.make_step(task, graphdef, optimizer, config, mesh, like)
        specs = reader.specs(t.batch_size, done, t.steps)
        update = compile_bins(update, like, specs, chief)
        preview = Preview(task, graphdef, reader, config, mesh) if t.preview_every else None
        metrics = Metrics(workdir, done + 1, t.steps, t.batch_size) if chief else None
        pending = None
        for now in range(done + 1, t.steps + 1):
            tracer.before(now)
            batch = to_devices(next(batches), mesh, t.batch_size)
            tokens = task.tokens(batch)
            current, latest = update(current, batch)
            # The next step is queued: only now wait for the one before it.
            if metrics and pending is not None:
                metrics.add(jax.device_get(pending))
            pending = latest | {"tokens": tokens}
            last = now == t.steps
            if now % t.log_every == 0 or last:
                check_finite(now, jax.device_get(latest))  # on every process: all end by it
                if metrics:
                    metrics.add(jax.device_get(pending))
                    pending = None
                    metrics.log(now)
            tracer.after(now, current)
            stopped = manager.reached_preemption(now) and not last
            if now % t.save_every == 0 or last or stopped:
                check_finite(now, jax.device_get(latest))
                place = {"batches": batches.get_state(), "data": reader.dataset.statistics}
                checkpoints.save(manager, current, place)
            if preview and (now % t.preview_every == 0 or last):
                grid = preview.grid(current)
                if metrics:
                    files.write_png(workdir / "samples" / f"step-{now:07d}.png", grid)
                    metrics.picture(now, "preview", grid)
            if stopped:
                break
        tracer.close()
        manager.wait_until_finished()
        if metrics:
            metrics.close()
    if stopped:
        raise processes.Stopped(f"stopped by SIGTERM; {workdir} is saved at step {now}")


def compile_bins(
    update: step.Step, like: state.TrainState, specs: list[Batch], tell: bool
) -> step.Step:
    """Returns the step compiled for each bin of the data set, and says how long that took."""
    begun = time.perf_counter()
    compiled = step.compile_each(update, like, specs)
    if tell:
        took = time.perf_counter() - begun
        print(
            f"programs compiled, one per size of pictures: {len(specs)} in {took:.0f} s", flush=True
        )
    return compiled


def to_devices(batch: Batch, mesh: jax.sharding.Mesh, batch_size: int | None = None) -> Batch:
    """Returns the global batch of `batch_size`, of which `batch` has the rows of this process.

    None: `batch` is whole, as a lone process has it.
    """
    where, total = sharding.batch_sharding(mesh), batch_size or len(batch.row_B)
    rows = sharding.rows_here(mesh, total)

    def place(a):
        def part(index):
            return a[np.searchsorted(rows, np.arange(total)[index[0]])]

        return jax.make_array_from_callback((total, *a.shape[1:]), where, part)

    return jax.tree.map(place, batch)


def describe(current: state.TrainState, mesh: jax.sharding.Mesh, batch_size: int):
    """Prints what is about to be trained, and logs every parameter's shape."""
    count = sum(a.size for a in jax.tree.leaves(current.params))
    print(
        f"{count:,} parameters, batch {batch_size}, mesh {dict(mesh.shape)} on {jax.devices()[0].device_kind}",
        flush=True,
    )
    if logging.level_info():
        parameter_overview.log_parameter_overview(
            nnx.to_pure_dict(current.params), include_stats="sharding"
        )


def check_same_data(known: dict, found: dict, data: pathlib.Path):
    """Raises InputError if a run was trained on features or latents of other statistics.

    known, found: the run's and the data set's, arrays by name.
    """

    def same(name) -> bool:
        a, b = (np.asarray(values.get(name)) for values in (known, found))
        return a.shape == b.shape and np.allclose(a, b, rtol=1e-5)

    different = [name for name in sorted(known.keys() | found.keys()) if not same(name)]
    if different:
        raise errors.InputError(
            f"{data} is not the data set that the run was trained on: its {different[0]} is otherwise "
            f"than in the checkpoint; give the old --data, or another --workdir"
        )


class Preview:
    """A grid of pictures from the EMA, of the same prompts with the same seeds, or of the same originals."""

    def __init__(self, task: Task, graphdef, reader: pipeline.Reader, config: Config, mesh):
        self.codec: Codec = make_codec(config.data.codec)
        inputs = task.preview_inputs(reader)
        self._inputs = jax.device_put(inputs, sharding.replicated(mesh))
        count = len(jax.tree.leaves(inputs)[0])
        keys_B = rng.per_sample(rng.key(config.seed, "preview"), np.arange(count))

        def draw(ema, constants, inputs):
            return task.preview(nnx.merge(graphdef, ema, constants), inputs, keys_B)

        self._draw = jax.jit(draw, out_shardings=sharding.replicated(mesh))

    def grid(self, current: state.TrainState) -> np.ndarray:
        """Returns the uint8 grid; every process must call it."""
        latents = jax.device_get(self._draw(current.ema, current.constants, self._inputs))
        images = np.asarray(self.codec.decode(latents))
        return files.picture_grid(list(images), columns=8, height=64)
