"""The cost of reliability: steps per second of a real run with all safeguards, over one without.

python -m benchmarks.reliability --config=configs/quickstart.py --data=DATA

Two processes train the same config. Each stops itself (SIGSTOP, with all its threads) after every
20 steps, and the other continues, so that other load on the machine affects both alike. Both are
started several times, since two processes of the same program differ by a percent or two. "Without"
is the same code with all of PARTS, or those in `--parts`, replaced by nothing. The times of both
include a log entry after every 20 steps, the check of latents, the few extra bytes in the lines of
a log, and checkpoints, if a start has at least as many steps as the config's checkpoint interval;
they exclude set-up and compilation.
"""

import argparse
import contextlib
import dataclasses
import itertools
import os
import pathlib
import runpy
import signal
import subprocess
import sys
import tempfile
import time
from unittest import mock

import jax.numpy as jnp
import numpy as np

from lidit_jax import digests
from lidit_jax.data import feature_codecs
from lidit_jax.training import guard, heap, logbook, loop
from lidit_jax.training.checkpoints import saving
from lidit_jax.training.config import parse
from lidit_jax.training.telemetry import clock, pulse

BLOCK = 20  # steps
NOTHING = np.zeros(2, np.uint32)
MARK = "a block took "


PARTS = {
    "guard": [
        (guard, "accepts", lambda *_, **__: jnp.bool_(True)),
        (guard, "after", lambda config, before, *_, **__: before),
    ],
    "batches": [  # the digests of a step's batch and noise
        (digests, "of_all", lambda tree: NOTHING),
        (digests, "digest", lambda array: NOTHING),
    ],
    "checkpoints": [(saving, "_digests", lambda items: {item: {} for item in items})],
    "clock": [(clock.Clock, "queued", lambda self, result: None)],
    "pulse": [
        (pulse.Pulse, "beat", lambda self, step: None),
        (pulse.Pulse, "watch", lambda self: None),
    ],
    "features": [(feature_codecs, "is_finite", lambda bits: True)],
}


@contextlib.contextmanager
def without(parts: list[str]):
    """Replaces the given parts, which an undisturbed run does not need, by nothing."""
    with contextlib.ExitStack() as stack:
        for where, name, nothing in itertools.chain(*(PARTS[part] for part in parts)):
            stack.enter_context(mock.patch.object(where, name, nothing))
        yield


@contextlib.contextmanager
def in_turns():
    """Makes a run print the time of each block of steps, and then stop until it gets SIGCONT."""
    begun, write = time.perf_counter(), logbook.Logbook.write

    def write_and_stop(self, step, saver):
        nonlocal begun
        write(self, step, saver)  # waits for the devices
        print(f"{MARK}{time.perf_counter() - begun}", flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)
        begun = time.perf_counter()

    with mock.patch.object(logbook.Logbook, "write", write_and_stop):
        yield


def train(given: argparse.Namespace):
    config = parse(runpy.run_path(given.config)["get_config"]())
    steps = BLOCK * (given.rounds + 1)
    train = dataclasses.replace(config.train, steps=steps, log_every=BLOCK, preview_every=0)
    config = dataclasses.replace(config, train=train)
    parts = given.parts if given.only == "without" else []
    heap.compute_here()
    with tempfile.TemporaryDirectory() as folder, in_turns(), without(parts):
        loop.train(config, given.data, pathlib.Path(folder) / "run")


def block(process: subprocess.Popen) -> float:
    """Lets a process train one block; returns the seconds it took."""
    process.send_signal(signal.SIGCONT)
    for line in process.stdout:
        if line.startswith(MARK):
            os.waitid(os.P_PID, process.pid, os.WSTOPPED)
            return float(line.removeprefix(MARK))
    raise SystemExit(f"a run ended early, with status {process.wait()}")


def compare(rounds: int) -> dict[str, np.ndarray]:
    """Starts both processes, and returns the seconds of their blocks."""
    with contextlib.ExitStack() as stack:
        pair = {}
        for name in ("with", "without"):
            command = [sys.executable, "-m", "benchmarks.reliability", *sys.argv[1:]]
            pair[name] = subprocess.Popen(
                [*command, f"--only={name}"], stdout=subprocess.PIPE, text=True
            )
            stack.callback(pair[name].kill)
            block(pair[name])  # includes set-up and compilation
        took = {name: np.zeros(rounds) for name in pair}
        for number in range(rounds):
            for name in ("with", "without") if number % 2 == 0 else ("without", "with"):
                took[name][number] = block(pair[name])
        for process in pair.values():
            process.send_signal(signal.SIGCONT)
            process.communicate()
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--data", required=True, type=pathlib.Path)
    parser.add_argument(
        "--starts", type=int, default=5, help="starts of both processes, one after another"
    )
    parser.add_argument("--rounds", type=int, default=12, help=f"blocks of {BLOCK} steps for each")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument(
        "--only", choices=("with", "without"), help="train only this one, for the parent process"
    )
    given = parser.parse_args()
    if given.only:
        return train(given)
    ratios = []
    for start in range(given.starts):
        took = compare(given.rounds)
        for name, times in took.items():
            low, middle, high = 1000 / BLOCK * np.quantile(times, (0.1, 0.5, 0.9))
            print(f"{name:8} {middle:.1f} ms a step ({low:.1f} to {high:.1f}, 10 to 90% of blocks)")
        ratios.append(took["without"].sum() / took["with"].sum())
        print(f"start {start + 1}: steps/s with, over without: {ratios[-1]:.3f}", flush=True)
    error = np.std(ratios, ddof=1) / np.sqrt(len(ratios)) if len(ratios) > 1 else np.nan
    print(
        f"steps/s with, over without: median of starts {np.median(ratios):.3f}, "
        f"mean {np.mean(ratios):.3f} +- {error:.3f}"
    )


if __name__ == "__main__":
    main()
