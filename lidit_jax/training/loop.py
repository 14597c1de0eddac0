"""The training loop: from a data set to checkpoints, the same whether started or resumed."""

import contextlib
import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax

from lidit_jax import processes
from lidit_jax.training import checkpoints, heap, opening, programs, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.feed import Feed
from lidit_jax.training.held_out import HeldOut
from lidit_jax.training.logbook import Logbook, tell_damaged
from lidit_jax.training.preview import Preview
from lidit_jax.training.telemetry import metrics, step_lines
from lidit_jax.training.telemetry.pulse import Pulse
from lidit_jax.training.tracing import Tracer


def train(
    config: Config,
    data: pathlib.Path,
    workdir: pathlib.Path,
    profile: tuple[int, int] | None = None,
    held_out: pathlib.Path | None = None,
):
    """Trains to `config.train.steps`, from the last checkpoint in `workdir` if there is one.

    Args:
      config: the run.
      data: a folder that `prepare` made.
      workdir: gets config.json, checkpoints/, tensorboard/, metrics.jsonl, samples/, heartbeats/,
        programs/, lock; begun.json with `train.init_from`; ledger.jsonl if there are incidents, and
        damaged/ if a checkpoint was damaged.
      profile: first and last step whose trace process 0 writes to profile/.
      held_out: a data set that is not trained on, on which each checkpoint is scored.

    Raises InputError, before anything is written, if config, data, mesh and workdir do not fit, and
    later if too many samples cannot be read; `errors.Passing` if a filesystem does not answer;
    `processes.Stopped`, with the state saved, if the scheduler wants its machines back; and
    FloatingPointError if too many steps in a row were skipped.
    """
    t, chief, started = config.train, jax.process_index() == 0, time.time()
    tracer = Tracer(workdir / "profile", profile, t.steps, write=chief)
    with (
        Pulse(workdir, t.watchdog_minutes) as pulse,
        contextlib.closing(opening.set_up(config, data, workdir, held_out)) as run,
        programs.kept_in(workdir / "programs"),  # makes a folder, now that the run owns workdir
    ):
        pulse.watch()
        done, saved = checkpoints.last_step(workdir), None
        if done is not None and done >= t.steps and not _unscored(run, done):
            with processes.together(), contextlib.suppress(checkpoints.Damaged):
                run.check_data(checkpoints.record_of(workdir, done))
            if chief:
                print(f"{workdir} is already trained to step {done}")
            return
        if done is None:
            current, done = run.first_state(), 0
        else:
            found = run.saved_state()
            current, done, saved = found.state, found.step, found.record
            checkpoints.set_aside(workdir, found, functools.partial(tell_damaged, workdir, done))
        if chief:
            if done:
                print(f"resuming {workdir} at step {done}")
            opening.describe(current, run.mesh, config)
        pulse.watch()
        tools = _Tools.made(run, done, pulse)
        pulse.watch()
        with (
            contextlib.closing(Logbook(run, pulse, done, started, saved)) as log,
            processes.heeding_sigterm() as told_to_stop,
            heap.kept(),
        ):
            if done < t.steps:
                stopped = _steps(run, tools, current, done, tracer, told_to_stop, log)
            else:
                stopped = _score_last(tools, current, done, told_to_stop, log)
    if stopped:
        raise processes.Stopped(f"stopped by SIGTERM; {workdir} is saved at step {stopped}")


@dataclasses.dataclass(frozen=True)
class _Tools:
    """A run's compiled programs: its step, and those that look at a state between steps."""

    update: step.Step | None
    preview: Preview | None
    held_out: HeldOut | None

    @classmethod
    def made(cls, run: opening.Run, done: int, pulse: Pulse) -> "_Tools":
        """Compiles what the steps after `done`, if any, need."""
        t, tell = run.config.train, "program" if jax.process_index() == 0 else ""
        update = preview = None
        if done < t.steps:
            specs = run.reader.specs(t.batch_size, done, t.steps)
            update = programs.compile_each(run.update(), run.like, specs, tell, pulse.watch)
            preview = Preview(run) if t.preview_every else None
        return cls(update, preview, HeldOut(run, pulse.watch) if run.held_out else None)


def _unscored(run: opening.Run, done: int) -> bool:
    """Returns whether the run was stopped before its last step was scored, and it still is not."""
    known = None
    if jax.process_index() == 0:
        lines = step_lines.read(run.workdir / metrics.NAME)
        scored = (line for line in lines if any(name.startswith(step.HELD_OUT) for name in line))
        known = checkpoints.was_due(run.workdir, done) or done in (line["step"] for line in scored)
    return run.held_out is not None and not processes.from_first(known)


def _score_last(
    tools: _Tools,
    current: state.TrainState,
    done: int,
    told_to_stop: Callable[[], bool],
    log: Logbook,
) -> int | None:
    """Scores the last step's state; returns that step if the scheduler stops it again."""
    scores = tools.held_out.scores(current, told_to_stop)
    if scores is None:
        return done
    log.scored(done, scores)
    log.flush()
    return None


def _steps(
    run: opening.Run,
    tools: _Tools,
    current: state.TrainState,
    done: int,
    tracer: Tracer,
    told_to_stop: Callable[[], bool],
    log: Logbook,
) -> int | None:
    """Trains from step `done` to the last; returns the step at which it was stopped, if it was.

    After a step come, as far as each is due: its preview, its lines on disk, the scores of its
    state, and its checkpoint, which holds the scores. A kill between two of them loses nothing: a
    restart repeats the steps since the last checkpoint. A run that is told to stop saves before it
    draws a preview, and leaves the scores of its state to a restart.
    """
    t = run.config.train
    feed = Feed(run.reader, run.mesh, t.batch_size)

    def saving_in_time(stopped: bool):
        return processes.within(t.grace if stopped else 0, "saving after SIGTERM")

    with checkpoints.Saver(run.workdir, t) as saver, contextlib.closing(tracer):
        saver.rehearse(current)
        for now in range(done + 1, t.steps + 1):
            tracer.before(now)
            with log.clock.fetching():
                drawn = next(run.batches)
            batch = feed(drawn.batch)
            tokens = run.task.tokens(batch)
            log.clock.begin()
            current, latest = tools.update(current, batch)
            log.queued(now, latest | {"tokens": tokens}, drawn.replaced)
            tracer.after(now, current)
            last = now == t.steps
            stopped = told_to_stop() and not last
            if now % t.log_every == 0 or last:
                log.write(now, saver)
            looked_at = tools.preview and (now % t.preview_every == 0 or last)
            if looked_at and not stopped:
                # Before its checkpoint, so that a kill loses neither.
                log.picture(now, tools.preview.grid(current))
                looked_at = False
            due = now // t.save_every > log.saved_at // t.save_every
            if due or last or stopped:
                with saving_in_time(stopped):
                    log.flush()  # a step's lines are on disk before its checkpoint
            # While steps are being skipped, the state itself may be to blame.
            due = last or due and not log.in_a_row
            scores = {}
            if tools.held_out and due:
                # None if there is no time: it is due after a restart, at the next step, if any.
                scores = None if stopped else tools.held_out.scores(current, told_to_stop)
                if scores is None:
                    scores, stopped, due = {}, True, False
                else:
                    log.scored(now, scores)
            with saving_in_time(stopped):
                if due or stopped:
                    place = {
                        "batches": run.batches.get_state(),
                        "data": run.reader.dataset.statistics,
                    }
                    if run.held_out:
                        place["held_out"] = run.held_out.dataset.statistics
                    saver.save(current, place | log.for_checkpoint(now, due, scores))
                if last or stopped:
                    saver.wait()
            if stopped:
                if looked_at:  # the state is safe by now
                    log.picture(now, tools.preview.grid(current))
                break
        log.tell_saved(now, saver)
    return now if stopped else None
