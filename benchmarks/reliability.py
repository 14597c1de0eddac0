"""What it costs that nothing is lost: steps a second of a real run with all of it, over one without.

python -m benchmarks.reliability --config=configs/quickstart.py --data=DATA --steps=60 --rounds=4

Whole runs in turns, each in a new folder, with a log every 20 steps and a checkpoint every 30. "Without" is
the same code with these replaced by nothing: the guard, the digests of batches and of checkpoints, the
heartbeat and the watchdog, the look at every number that is read. Compilation is not in it.
"""

import argparse
import contextlib
import dataclasses
import pathlib
import runpy
import statistics
import tempfile
from unittest import mock

import jax.numpy as jnp
import numpy as np

from lidit_jax import digests
from lidit_jax.data import feature_codecs
from lidit_jax.training import guard, loop, metrics, pulse, step_lines
from lidit_jax.training.checkpoints import saving
from lidit_jax.training.config import parse

NOTHING = np.zeros(2, np.uint32)


@contextlib.contextmanager
def without():
    """Replaces what is not needed by a run that nothing disturbs."""
    with contextlib.ExitStack() as stack:
        for where, name, nothing in (
            (guard, "accepts", lambda *_, **__: jnp.bool_(True)),
            (guard, "after", lambda config, before, *_, **__: before),
            (digests, "of_all", lambda tree: NOTHING),
            (digests, "digest", lambda array: NOTHING),
            (saving, "_digests", lambda items: {item: {} for item in items}),
            (pulse.Pulse, "beat", lambda self, step: None),
            (pulse.Pulse, "watch", lambda self: None),
            (feature_codecs, "is_finite", lambda bits: True),
        ):
            stack.enter_context(mock.patch.object(where, name, nothing))
        yield


def seconds_per_step(config, data: pathlib.Path) -> float:
    """Trains a run, and returns the mean over its logs but the first, which has the first step's start."""
    with tempfile.TemporaryDirectory() as folder:
        loop.train(config, data, pathlib.Path(folder) / "run")
        lines = step_lines.read(pathlib.Path(folder) / "run" / metrics.NAME)
    return statistics.mean(1 / line["steps_per_s"] for line in lines[1:])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    config = parse(runpy.run_path(given.config)["get_config"]())
    often = {"log_every": 20, "save_every": 30, "preview_every": 0}
    train = dataclasses.replace(config.train, steps=given.steps, **often)
    config = dataclasses.replace(config, train=train)
    took = {"with": [], "without": []}
    for number in range(given.rounds):
        order = ["with", "without"] if number % 2 == 0 else ["without", "with"]
        for name in order:
            with without() if name == "without" else contextlib.nullcontext():
                took[name].append(seconds_per_step(config, given.data))
    for name, times in took.items():
        print(f"{name:8} {', '.join(f'{1000 * t:.1f}' for t in times)} ms a step")
    ratios = [b / a for a, b in zip(took["with"], took["without"])]
    print(f"steps/s with, over without: {statistics.median(ratios):.3f} (median of {len(ratios)} pairs, "
          f"{min(ratios):.3f} to {max(ratios):.3f})")  # fmt: skip


if __name__ == "__main__":
    main()
