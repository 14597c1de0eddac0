"""The run: from a data set to checkpoints, started or resumed, the same either way."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from lidit_jax import files, processes, rng, sharding
from lidit_jax.models.vae import Codec, make_codec
from lidit_jax.training import checkpoints, opening, programs, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.feed import Feed
from lidit_jax.training.metrics import Metrics, check_finite
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
      workdir: gets config.json, checkpoints/, tensorboard/, metrics.jsonl, samples/ and programs/.
      profile: first and last step whose trace process 0 writes to profile/.

    Raises InputError, before anything is written, where config, data, mesh and workdir do not fit;
    and `processes.Stopped`, its state saved, where the scheduler wants its machines back.
    """
    t, chief = config.train, jax.process_index() == 0
    tracer = Tracer(workdir / "profile", profile, t.steps, write=chief)
    run = opening.set_up(config, data, workdir)
    with (
        programs.kept_in(workdir / "programs"),
        checkpoints.make_manager(workdir, t.keep) as manager,
    ):
        done = manager.latest_step()
        if done is not None and done >= t.steps:
            if chief:
                print(f"{workdir} is already trained to step {done}")
            return
        if done is None:
            current, done, begun = run.first_state(), 0, None
        else:
            current, place = run.saved_state(manager, done)
            run.batches.set_state(place["batches"])
            begun = place.get("metrics")
        if chief:
            if done:
                print(f"resuming {workdir} at step {done}")
            opening.describe(current, run.mesh, t.batch_size)
        specs = run.reader.specs(t.batch_size, done, t.steps)
        update = programs.compile_each(run.update(), run.like, specs, tell=chief)
        with processes.heeding_sigterm() as told:
            stopped = _steps(run, update, current, done, begun, manager, tracer, told)
    if stopped:
        raise processes.Stopped(f"stopped by SIGTERM; {workdir} is saved at step {stopped}")


def _steps(
    run: opening.Run,
    update: step.Step,
    current: state.TrainState,
    done: int,
    begun: dict | None,
    manager: ocp.CheckpointManager,
    tracer: Tracer,
    told: Callable[[], bool],
) -> int | None:
    """Trains from step `done` on to the last; returns the step at which the scheduler stopped it, if it did.

    begun: what had been added to the metrics by then; see `Metrics`.
    told: whether a process that trains alone was told to stop; several agree by the `manager`.
    """
    t, workdir = run.config.train, run.workdir
    feed = Feed(run.reader, run.mesh, t.batch_size)
    preview = Preview(run) if t.preview_every else None
    chief = jax.process_index() == 0
    metrics = Metrics(workdir, done + 1, t.steps, t.batch_size, begun) if chief else None
    pending = None
    for now in range(done + 1, t.steps + 1):
        tracer.before(now)
        batch = feed(next(run.batches))
        tokens = run.task.tokens(batch)
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
        stopped = (manager.reached_preemption(now) or told()) and not last
        if now % t.save_every == 0 or last or stopped:
            check_finite(now, jax.device_get(latest))
            if metrics and pending is not None:
                metrics.add(jax.device_get(pending))
                pending = None
            place = {"batches": run.batches.get_state(), "data": run.reader.dataset.statistics}
            place["metrics"] = metrics and metrics.begun  # process 0 alone writes `place`
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
    return now if stopped else None


class Preview:
    """A grid of pictures from the EMA, of the same prompts with the same seeds, or of the same originals.

    Compiled when it is made: what does not compile, or does not fit, is told before the first step.
    """

    def __init__(self, run: opening.Run):
        self.codec: Codec = make_codec(run.config.data.codec)
        inputs = run.task.preview_inputs(run.reader)
        self._count = len(jax.tree.leaves(inputs)[0])
        parts = sharding.batch_parts(run.mesh)
        self._rows = -(-self._count // parts) * parts
        places = np.arange(self._rows) % self._count
        where = sharding.batch_sharding(run.mesh)

        def spread(a):  # of which every process has the whole
            filled = np.asarray(a)[places]
            return jax.make_array_from_callback(filled.shape, where, lambda index: filled[index])

        def draw(ema, constants, inputs, places_B):
            keys_B = rng.per_sample(rng.key(run.config.seed, "preview"), places_B)
            # For `sharding.split_batch`, and for attention's kernels.
            with jax.sharding.use_abstract_mesh(run.mesh.abstract_mesh):
                return run.task.preview(nnx.merge(run.graphdef, ema, constants), inputs, keys_B)

        self._inputs = jax.tree.map(spread, (inputs, np.arange(self._count)))
        program = jax.jit(draw, out_shardings=sharding.replicated(run.mesh))
        self._draw = program.lower(run.like.ema, run.like.constants, *self._inputs).compile()

    def grid(self, current: state.TrainState) -> np.ndarray:
        """Returns the uint8 grid; every process must call it."""
        latents = jax.device_get(self._draw(current.ema, current.constants, *self._inputs))
        images = np.asarray(self.codec.decode(latents[: len(latents) * self._count // self._rows]))
        return files.picture_grid(list(images), columns=8, height=64)
