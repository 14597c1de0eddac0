"""The run: from a data set to checkpoints, started or resumed, the same either way."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from lidit_jax import files, processes, rng, sharding
from lidit_jax.models.vae import Codec, make_codec
from lidit_jax.training import checkpoints, opening, programs, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.feed import Feed
from lidit_jax.training.ledger import Ledger
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
      workdir: gets config.json, checkpoints/, tensorboard/, metrics.jsonl, samples/ and programs/; and damaged/
        and ledger.jsonl, where a checkpoint is found damaged.
      profile: first and last step whose trace process 0 writes to profile/.

    Raises InputError, before anything is written, where config, data, mesh and workdir do not fit;
    and `processes.Stopped`, its state saved, where the scheduler wants its machines back.
    """
    t, chief = config.train, jax.process_index() == 0
    tracer = Tracer(workdir / "profile", profile, t.steps, write=chief)
    run = opening.set_up(config, data, workdir)
    with (
        programs.kept_in(workdir / "programs"),
    ):
        done = checkpoints.last_step(workdir)
        if done is not None and done >= t.steps:
            if chief:
                print(f"{workdir} is already trained to step {done}")
            return
        if done is None:
            current, done, damaged = run.first_state(), 0, []
        else:
            found = run.saved_state()
            current, done = found.state, found.step
            damaged = checkpoints.set_aside(workdir, found)
        _note(damaged, Ledger(workdir, done + 1, write=chief), done)
        if chief:
            if done:
                print(f"resuming {workdir} at step {done}")
            opening.describe(current, run.mesh, t.batch_size)
        specs = run.reader.specs(t.batch_size, done, t.steps)
        update = programs.compile_each(run.update(), run.like, specs, tell=chief)
        with checkpoints.Saver(workdir, t) as saver, processes.heeding_sigterm() as told:
            stopped = _steps(run, update, current, done, saver, tracer, told)
    if stopped:
        raise processes.Stopped(f"stopped by SIGTERM; {workdir} is saved at step {stopped}")


def _steps(
    run: opening.Run,
    update: step.Step,
    current: state.TrainState,
    done: int,
    saver: checkpoints.Saver,
    tracer: Tracer,
    told: Callable[[], bool],
) -> int | None:
    """Trains from step `done` on to the last; returns the step at which the scheduler stopped it, if it did.

    told: whether a process that trains alone was told to stop; several agree by the `saver`.
    """
    t, workdir = run.config.train, run.workdir
    feed = Feed(run.reader, run.mesh, t.batch_size)
    preview = Preview(run) if t.preview_every else None
    chief = jax.process_index() == 0
    metrics = Metrics(workdir, done + 1, t.steps, t.batch_size) if chief else None
    pending = None
    for now in range(done + 1, t.steps + 1):
        tracer.before(now)
        batch = feed(next(run.batches))
        tokens = run.task.tokens(batch)
        current, latest = update(current, batch)
        # The next step is queued: only now wait for the one before it.
        if pending is not None:
            _add(jax.device_get(pending), saver, metrics)
        pending = latest | {"tokens": tokens}
        last = now == t.steps
        if now % t.log_every == 0 or last:
            check_finite(now, jax.device_get(latest))  # on every process: all end by it
            _add(jax.device_get(pending), saver, metrics)
            pending = None
            if metrics:
                metrics.log(now, **_told(saver))
        tracer.after(now, current)
        stopped = (saver.reached_preemption(now) or told()) and not last
        if now % t.save_every == 0 or last or stopped:
            check_finite(now, jax.device_get(latest))
            if pending is not None:
                _add(jax.device_get(pending), saver, metrics)
                pending = None
            place = {"batches": run.batches.get_state(), "data": run.reader.dataset.statistics}
            saver.save(current, place)
        if preview and (now % t.preview_every == 0 or last):
            grid = preview.grid(current)
            if metrics:
                files.write_png(workdir / "samples" / f"step-{now:07d}.png", grid)
                metrics.picture(now, "preview", grid)
        if stopped:
            break
    tracer.close()
    saver.wait()
    if metrics:
        metrics.scalars(now, **_told(saver))
        metrics.close()
    return now if stopped else None


def _add(fetched: dict, saver: checkpoints.Saver, metrics: Metrics | None):
    saver.add(fetched)
    if metrics:
        metrics.add(fetched)


def _told(saver: checkpoints.Saver) -> dict[str, float]:
    """Prints a line for each checkpoint that has come to be on disk; returns how long the last took."""
    finished = saver.finished()
    for saved in finished:
        print(saved.line(), flush=True)
    return finished[-1].scalars() if finished else {}


def _note(damaged: list[tuple[pathlib.Path, str]], ledger: Ledger, used: int):
    """Tells which checkpoints were found damaged and moved aside, on the console and in the ledger."""
    for folder, why in damaged:
        if jax.process_index() == 0:
            print(
                f"a checkpoint is damaged: {why}; moved to {folder}; step {used} is used instead",
                flush=True,
            )
        ledger.row(used, "checkpoint", folder=str(folder), why=why)
    ledger.close()


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
