"""A run's incidents, for people to read: <workdir>/ledger.jsonl.

A line has the "step", "what" happened, and that event's own facts:
  skipped     a step whose loss or gradient was unlike those before; the keys of its samples
  replaced    a sample that could not be read, and the one that was read instead
  checkpoint  a damaged checkpoint that was moved aside
  lines       a JSON-lines file, possibly this one, that has lost lines
"""

import pathlib
from typing import Any

from lidit_jax.training.telemetry.step_lines import StepLines, read

NAME = "ledger.jsonl"
IN_STEPS = ("skipped", "replaced")


class Ledger:
    """The ledger of a run that is about to do `first_step`. Without `write` it discards rows.

    Only process 0 writes; the file is created with its first row.
    count: rows about events in steps, which a resumed run writes again.
    """

    def __init__(self, workdir: pathlib.Path, first_step: int, write: bool = True):
        self.path = workdir / NAME
        self._first_step, self._write, self._lines = first_step, write, None
        self.count = 0
        if write and self.path.exists():
            self._lines = StepLines(self.path, first_step)
            self.count = sum(row["what"] in IN_STEPS for row in read(self.path))

    def row(self, step: int, what: str, **facts: Any):
        """Writes one event; it has left this process when this returns."""
        if not self._write:
            return
        if self._lines is None:
            self._lines = StepLines(self.path, self._first_step)
        self._lines.write(step, what=what, **facts)
        self.count += what in IN_STEPS

    def row_once(self, step: int, what: str, **facts: Any):
        """Writes an event unless the ledger has it; for events that every start may find again."""
        if {"step": step, "what": what} | facts not in read(self.path):
            self.row(step, what, **facts)

    def close(self):
        if self._lines is not None:
            self._lines.close()
