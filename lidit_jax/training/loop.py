"""The run: from a data set to checkpoints, started or resumed, the same either way."""

import contextlib
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np
from flax import nnx

from lidit_jax import files, processes, rng, sharding
from lidit_jax.models.vae import Codec, make_codec
from lidit_jax.training import checkpoints, opening, programs, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.feed import Feed
from lidit_jax.training.logbook import Logbook, tell_damaged
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
      workdir: gets config.json, checkpoints/, tensorboard/, metrics.jsonl, samples/, heartbeats/,
        programs/; ledger.jsonl where there is anything to tell, and damaged/ where a checkpoint was.
      profile: first and last step whose trace process 0 writes to profile/.

    Raises InputError, before anything is written, where config, data, mesh and workdir do not fit;
    `processes.Stopped`, its state saved, where the scheduler wants its machines back; and
    FloatingPointError where too many steps in a row were skipped.
    """
    t, chief, started = config.train, jax.process_index() == 0, time.time()
    tracer = Tracer(workdir / "profile", profile, t.steps, write=chief)
    run = opening.set_up(config, data, workdir)
    with programs.kept_in(workdir / "programs"):
        done = checkpoints.last_step(workdir)
        if done is not None and done >= t.steps:
            if chief:
                print(f"{workdir} is already trained to step {done}")
            return
        if done is None:
            current, done, told_so_far = run.first_state(), 0, None
        else:
            found = run.saved_state()
            current, done, told_so_far = found.state, found.step, found.record
            tell_damaged(checkpoints.set_aside(workdir, found), workdir, done)
        if chief:
            if done:
                print(f"resuming {workdir} at step {done}")
            opening.describe(current, run.mesh, t.batch_size)
        specs = run.reader.specs(t.batch_size, done, t.steps)
        update = programs.compile_each(run.update(), run.like, specs, tell=chief)
        with (
            checkpoints.Saver(workdir, t) as saver,
            contextlib.closing(Logbook(run, saver, done, started, told_so_far)) as log,
            processes.heeding_sigterm() as told,
        ):
            stopped = _steps(run, update, current, done, saver, tracer, told, log)
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
    log: Logbook,
) -> int | None:
    """Trains from step `done` on to the last; returns the step at which the scheduler stopped it, if it did.

    told: whether a process that trains alone was told to stop; several agree by the `saver`.
    """
    t = run.config.train
    feed = Feed(run.reader, run.mesh, t.batch_size)
    preview = Preview(run) if t.preview_every else None
    saved = done
    for now in range(done + 1, t.steps + 1):
        tracer.before(now)
        with log.clock.beside("data"):
            drawn = next(run.batches)
        batch = feed(drawn.batch)
        tokens = run.task.tokens(batch)
        current, latest = update(current, batch)
        log.queued(now, latest | {"tokens": tokens}, drawn.replaced)
        tracer.after(now, current)
        last = now == t.steps
        stopped = (saver.reached_preemption(now) or told()) and not last
        if now % t.log_every == 0 or last:
            log.write(now)
        due, ends = now // t.save_every > saved // t.save_every, last or stopped
        if due or ends:
            log.flush()  # what is told of a step is on the disk before its checkpoint
        # While steps are skipped it is not known whether it is the state that is to blame.
        if ends or due and not log.in_a_row:
            saved = now
            with log.clock.beside("save"):
                place = {"batches": run.batches.get_state(), "data": run.reader.dataset.statistics}
                saver.save(current, place | log.state())
        if preview and (now % t.preview_every == 0 or last):
            with log.clock.beside("preview"):
                log.picture(now, preview.grid(current))
        if stopped:
            break
    tracer.close()
    saver.wait()
    log.tell_saved(now)
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
