"""Replays one step of a run with the same batch and noise, and reports the loss of each sample."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from lidit_jax import errors, files, processes, sharding
from lidit_jax.training import checkpoints, opening, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.feed import Feed
from lidit_jax.training.telemetry.step_lines import StepLines
from lidit_jax.training.trained import read_config

SHOWN = 10  # samples on the console


@dataclasses.dataclass(frozen=True)
class Sample:
    """A sample of a batch: its key and row in the data set, and its loss."""

    key: str
    row: int
    loss: float


def replay(config: Config, data: pathlib.Path, workdir: pathlib.Path, number: int) -> list[Sample]:
    """Computes, prints and writes the sample losses of step `number` (from 1), worst first.

    The parameters are those of the last checkpoint before that step, or the run's initial ones.
    Process 0 writes <workdir>/replays/<number>.jsonl; nothing else in the run changes.
    Raises InputError, and writes nothing, if `workdir` is not this config's run, or has fewer
    steps.
    """
    with processes.together():
        read_config(workdir)
        if number > config.train.steps:
            raise errors.InputError(
                f"--replay={number}: the run has {config.train.steps} steps; give one of those"
            )
    run = opening.set_up(config, data, workdir, write=False)
    steps = checkpoints.steps(workdir)
    before = max((s for s in steps if s < number), default=0)
    if steps and not before and number > 1 and jax.process_index() == 0:
        print(
            f"the checkpoints before step {number} are gone; its batch is scored with the run's "
            f"initial parameters, which are not those that the step had"
        )
    current = checkpoints.restore(workdir, before, run.like)[0] if before else run.first_state()
    scored = zip(*_scored(run, current, number), strict=True)
    samples = [Sample(run.reader.key(int(row)), int(row), float(loss)) for loss, row in scored]
    samples.sort(key=lambda s: -s.loss if math.isfinite(s.loss) else -math.inf)
    if jax.process_index() == 0:
        _tell(samples, workdir / "replays" / f"{number:07d}.jsonl", number, before)
    processes.barrier("replay")
    return samples


def _scored(
    run: opening.Run, current: state.TrainState, number: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the loss of every sample of the global batch, f32 [B], and its row, on every process.

    Uses the step's micro-batches, so that what could be trained can be replayed.
    """

    def score(params, constants, batch):
        def score_one(micro):
            model = nnx.merge(run.graphdef, params, constants)
            return step.losses(run.task, model, *micro, run.mesh)[0]

        keys_B = step.draws(run.config, number - 1)
        micros = step.micro_batches((batch, keys_B), run.config.train.accumulate)
        losses_AxM = jax.lax.map(score_one, micros)
        return losses_AxM.swapaxes(0, 1).reshape(-1), batch.row_B

    feed = Feed(run.reader, run.mesh, run.config.train.batch_size)
    scored = jax.jit(score, out_shardings=sharding.replicated(run.mesh))
    return jax.device_get(scored(current.params, current.constants, feed(run.batch(number))))


def _tell(samples: Sequence[Sample], path: pathlib.Path, number: int, before: int):
    losses = np.asarray([s.loss for s in samples])
    finite = losses[np.isfinite(losses)]
    print(
        f"step {number} with the parameters of step {before}: {len(losses)} samples, loss "
        f"{finite.mean() if len(finite) else math.nan:.4f} +- "
        f"{finite.std() if len(finite) else math.nan:.4f}, "
        f"{len(losses) - len(finite)} not finite"
    )
    for s in samples[:SHOWN]:
        print(f"  {s.loss:<12.6g} {s.key} (row {s.row})")
    with files.atomic(path) as temporary, contextlib.closing(StepLines(temporary, 0)) as lines:
        for s in samples:
            loss = s.loss if math.isfinite(s.loss) else str(s.loss)
            lines.write(number, key=s.key, row=s.row, loss=loss)
    print(f"all of them: {path}")
