"""A training process, watched from outside by its output and its run's files."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from lidit_jax.training.checkpoints import naming
from tests import several
from tests.same_run import steps_saved

POLL = 0.001  # seconds between two polls
LONGEST = 300  # seconds after which a process counts as hung
PHASES = ("start", "restore", "compile", "steps", "save", "removal")


class Hung(AssertionError):
    """A process did not end in time; its threads' stacks are in its log."""


class Victim:
    """A running process. Its output goes to `log`, which may be read at any time."""

    def __init__(self, command: list[str], workdir: pathlib.Path, log: pathlib.Path):
        self.workdir, self.log = workdir, log
        self.restoring = False  # whether it was seen reading a checkpoint
        self._begun = time.monotonic()
        with open(log, "w") as out:
            self._process = subprocess.Popen(
                [sys.executable, *map(str, command)], cwd=several.ROOT, env=several.environment(),
                stdout=out, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    @property
    def status(self) -> int | None:
        return self._process.poll()

    @property
    def error(self) -> str:
        """The first error line; "" if there is none."""
        found = [line for line in self.text.splitlines() if line.startswith("error")]
        return found[0] if found else ""

    @property
    def resumed(self) -> int | None:
        """The step at which it said it resumed."""
        found = re.search(r"^resuming .* at step (\d+)", self.text, re.MULTILINE)
        return int(found[1]) if found else None

    @property
    def steps(self) -> int:
        """How many step lines it has printed."""
        return self.text.count("\nstep ")

    @property
    def opened(self) -> bool:
        """Whether it has its state and has gone on to compile."""
        return " parameters, batch " in self.text

    @property
    def compiled(self) -> bool:
        done = re.findall(r"^program (\d+) of (\d+)", self.text, re.MULTILINE)
        return bool(done) and done[-1][0] == done[-1][1]

    def reads_checkpoint(self) -> bool:
        """Whether it has, or was seen to have, a checkpoint's file open before `opened`."""
        folder = str(self.workdir / "checkpoints") + "/"
        fds = f"/proc/{self._process.pid}/fd"
        try:
            links = [os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)]
        except OSError:  # a file was closed in the meantime, or the process has ended
            links = []
        self.restoring |= not self.opened and any(link.startswith(folder) for link in links)
        return self.restoring

    def wait_until(self, happened: Callable[[], bool]):
        """Waits until `happened()`, or until the process has ended."""
        while self.alive and not happened():
            self._check_time()
            time.sleep(POLL)

    def kill(self) -> bool:
        """Kills it; returns whether it was still alive."""
        self._process.send_signal(signal.SIGKILL)
        return self._process.wait() == -signal.SIGKILL

    def finish(self) -> int:
        """Waits for it to end; returns its status."""
        while self.alive:
            self._check_time()
            time.sleep(0.02)
        return self._process.returncode

    def _check_time(self):
        if time.monotonic() - self._begun > LONGEST:
            self._process.send_signal(signal.SIGABRT)  # absl has faulthandler print the stacks
            self._process.wait()
            raise Hung(f"not finished after {LONGEST} s: {self.log}")

    def phase(self, keep: int) -> str:
        """Returns in which of `PHASES` it was killed, judging by what it left behind."""
        folder = self.workdir / "checkpoints"
        if not self.opened:
            return "restore" if self.restoring else "start"
        if not self.compiled:
            return "compile"
        if any(".orbax-checkpoint-tmp" in p.name for p in folder.glob("*")):
            return "save"
        if len(steps_saved(self.workdir)) > keep or not all(map(is_whole, checkpoints(folder))):
            return "removal"
        return "steps"


def checkpoints(folder: pathlib.Path) -> list[pathlib.Path]:
    return [p for p in folder.glob("*") if p.name.isdecimal()]


def is_whole(checkpoint: pathlib.Path) -> bool:
    """Whether every part of a checkpoint exists, by name."""
    return all((checkpoint / name).exists() for name in (*naming.ALL, "_CHECKPOINT_METADATA"))
