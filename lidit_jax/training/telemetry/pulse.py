"""Shows whether a run is alive: a file renewed by its steps, and thread stacks if it hangs."""

import faulthandler
import pathlib
import socket
import sys
import time

import jax

from lidit_jax import files

RENEW = 5.0  # seconds between two writes of the file
REARM = 1.0  # seconds between two resets of the watchdog


class Pulse:
    """A heartbeat at the end of every step, and of other work before the steps. A context manager.

    <workdir>/heartbeats/<process>.json has the step, when it ended (seconds since 1970), and the
    host. If nothing ends for `minutes`, the stacks of all threads are written to stderr, and again
    after each further `minutes`; 0: never.
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
        """Called when a step has ended."""
        now = time.monotonic()
        if now - self._armed >= min(REARM, self._seconds / 4):
            self.watch()
        if now - self._written >= RENEW:
            told = {"step": step, "time": time.time(), "host": socket.gethostname()}
            files.write_json(self._path, told, sealed=False)
            self._written = now

    def watch(self):
        """Restarts the watchdog."""
        self._armed = time.monotonic()
        if self._seconds:  # in C, so that it works where Python hangs
            faulthandler.dump_traceback_later(self._seconds, repeat=True, file=sys.__stderr__)
