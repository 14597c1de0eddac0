"""Counts, reports and limits the samples of a run that could not be read and were replaced."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from lidit_jax import errors, processes
from lidit_jax.data.pipeline import Replaced
from lidit_jax.training.telemetry.ledger import Ledger

SHOWN = 3  # samples in the error that ends a run


class BadRecords:
    """The rows that any process replaced, kept by every process; process 0's ledger has each event.

    budget: how many distinct rows of the data set may be replaced. data: its folder, for messages.
    holders_B: for each place in the global batch, how many processes have devices that hold it.
    """

    def __init__(self, budget: int, ledger: Ledger, data: pathlib.Path, holders_B: Sequence[int]):
        self._budget, self._ledger, self._data = budget, ledger, data
        self._holders_B = holders_B
        self._waiting: list[dict[str, Any]] = []  # of this process, since the last flush
        self._rows: dict[int, str] = {}  # row -> what was wrong with it

    def saw(self, step: int, replaced: Iterable[Replaced]):
        """Records the samples that this process replaced in a step's batch."""
        self._waiting += [{"step": step} | dataclasses.asdict(r) for r in replaced]

    def flush(self):
        """Writes all processes' events to the ledger; all must call it before saving a checkpoint.

        Raises InputError, on every process alike, once the rows exceed the budget.
        """
        found, self._waiting = processes.gathered(self._waiting), []
        # If the devices of several processes hold a sample, each of them has read it.
        events = {(event["step"], event["place"]): event for event in found}
        told = collections.Counter((event["step"], event["place"]) for event in found)
        for (step, place), event in sorted(events.items(), key=lambda e: e[0]):
            facts = {name: event[name] for name in ("row", "key", "used", "why")}
            self._ledger.row(step, "replaced", **facts)
            text = f"row {event['row']}, {event['key']}: {event['why']}"
            self._rows.setdefault(event["row"], text)
            if told[step, place] < self._holders_B[place]:
                raise errors.InputError(
                    f"{text}; but another process, whose devices share the sample, could read it, "
                    f"and used another picture from step {step} on: give all processes the same "
                    f"{self._data}. The last checkpoint is from before that"
                )
        if len(self._rows) > self._budget:
            shown = "; ".join(list(self._rows.values())[:SHOWN])
            raise errors.InputError(
                f"{len(self._rows)} pictures of {self._data} cannot be read, but data.bad_records "
                f"is {self._budget} ({shown}); {self._ledger.path} has all of them. "
                f"`prepare --verify` lists the files to delete and make again"
            )

    def state(self) -> list[tuple[int, str]]:
        """Returns the rows replaced so far and what was wrong with each, for a checkpoint."""
        return sorted(self._rows.items())

    def set_state(self, rows: Iterable[tuple[int, str]]):
        """Restores what `state` returned."""
        self._rows = {row: text for row, text in rows}
