"""Several processes started as a user starts them, by the door, on the CPUs of this machine."""

import contextlib
import dataclasses
import itertools
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from tests import compiling

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = """
from tests import tiny

def get_config():
    c = tiny.config_dict({llms!r}, steps=4, save_every=2, log_every=1, preview_every=0)
    c.model.depth = 1
    c.model.conditioner.n_ltr = 1
    c.optim.decay = "constant"  # or the number of steps is part of the run
    return c
"""


def write_config(folder: pathlib.Path, llms: list[str]) -> pathlib.Path:
    """Writes the config of a run of four steps."""
    path = folder / "several.py"
    path.write_text(CONFIG.format(llms=llms[:1]))
    return path


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        return server.getsockname()[1]


@dataclasses.dataclass
class Ended:
    """What became of a process."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line of stderr that tells an error; "" if none does."""
        lines = [line for line in self.err.splitlines() if line.startswith("error")]
        return lines[-1] if lines else ""


def environment(**more: str) -> dict[str, str]:
    """Returns the environment of a process that compiles fast, and finds what the suite compiled."""
    return os.environ | compiling.environment() | {"PYTHONUNBUFFERED": "1"} | more


def start(*args: str, env: dict[str, str] | None = None) -> subprocess.Popen:
    """Starts `python *args` in the repository's root."""
    return subprocess.Popen(
        [sys.executable, *map(str, args)], cwd=ROOT, env=env or environment(),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(*processes: subprocess.Popen, timeout: float = 400) -> list[Ended]:
    """Waits for processes. Kills them all if one takes too long."""
    try:
        told = [p.communicate(timeout=timeout) for p in processes]
    finally:
        for p in processes:
            if p.poll() is None:
                p.kill()
    return [Ended(p.returncode, *texts) for p, texts in zip(processes, told)]


def wait_for(
    path: pathlib.Path,
    running: list[subprocess.Popen],
    when: Callable[[pathlib.Path], bool] = lambda path: True,
):
    """Waits until a path is there and `when` holds, or fails when a process has ended."""
    while not (path.exists() and when(path)):
        if any(p.poll() is not None for p in running):
            pytest.fail("\n".join(end.err[-3000:] for end in ended(*running)))
        time.sleep(0.1)


def flags(processes: int, process_id: int, port: int) -> list[str]:
    return [
        f"--coordinator=localhost:{port}", f"--processes={processes}", f"--process_id={process_id}",
    ]  # fmt: skip


def door(config, data, workdir, *more: str) -> list[str]:
    """Returns the arguments of the training door."""
    named = {"config": config, "data": data, "workdir": workdir}
    return ["-m", "lidit_jax.train", *(f"--{name}={value}" for name, value in named.items()), *more]


def train(
    processes: int,
    devices: int,
    config,
    data,
    workdir,
    *more: str,
    env: dict[str, str] | None = None,
) -> list[Ended]:
    """Trains with `processes` of `devices` each; returns what became of every one."""
    port = free_port()
    command = door(config, data, workdir, f"--cpu_devices={devices}", *more)
    return ended(*(start(*command, *flags(processes, i, port), env=env) for i in range(processes)))


@contextlib.contextmanager
def stopped(monkeypatch, question: int):
    """A training of this process is told to stop when it asks so often: once in a step, once in a scored batch."""

    @contextlib.contextmanager
    def heeding():
        asked = itertools.count(1)
        yield lambda: next(asked) == question

    with monkeypatch.context() as patched:
        patched.setattr("lidit_jax.processes.heeding_sigterm", heeding)
        yield
