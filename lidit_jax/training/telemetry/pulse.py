"""Whether a run is alive: a file that its steps renew, and every thread's stack where none ends."""

import faulthandler
import pathlib
import socket
import sys
import time

import jax

from lidit_jax import files

RENEW = 5.0  # seconds between two writings of the file
REARM = 1.0  # seconds between two settings of the watchdog


class Pulse:
    """Beats at every step that has ended, and before them wherever something else has. A context manager.

    <workdir>/heartbeats/<process>.json tells the step, when it ended (seconds since 1970), and by
    which host. When for `minutes` nothing has ended, the stacks of all threads go to stderr, and again
    every so many minutes; 0: never.
    """

    def __init__(self, workdir: pathlib.Path, minutes: float):
        self._path = workdir / "heartbeats" / f"{jax.process_index():05d}.json"
        self._seconds, self._armed, self._written = 60 * minutes, 0.0, 0.0

    def __enter__(self) -> "Pulse":
        self.watch()
        return self

    def __exit__(self, *_):
        if self._seconds:
            faulthandler.cancel_dump_traceback_later()

    def beat(self, step: int):
        """Is called when a step has ended."""
        now = time.monotonic()
        if now - self._armed >= min(REARM, self._seconds / 4):
            self.watch()
        if now - self._written >= RENEW:
            told = {"step": step, "time": time.time(), "host": socket.gethostname()}
            files.write_json(self._path, told, sealed=False)
            self._written = now

    def watch(self):
        """Begins to wait anew."""
        self._armed = time.monotonic()
        if self._seconds:  # in C, so that it works where Python hangs
            faulthandler.dump_traceback_later(self._seconds, repeat=True, file=sys.__stderr__)
