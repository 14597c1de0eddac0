"""The samples of a run that could not be read and were replaced: counted, told, and not too many."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from lidit_jax import errors, processes
from lidit_jax.data.pipeline import Replaced
from lidit_jax.training.telemetry.ledger import Ledger

SHOWN = 3  # of them in the error that ends a run


class BadRecords:
    """What every process keeps of the rows that any process replaced; process 0's ledger has each event.

    budget: how many distinct rows of the data set may be replaced. data: its folder, for the message.
    holders_B: how many processes have devices that hold a sample, by its place in the global batch.
    """

    def __init__(self, budget: int, ledger: Ledger, data: pathlib.Path, holders_B: Sequence[int]):
        self._budget, self._ledger, self._data = budget, ledger, data
        self._holders_B = holders_B
        self._waiting: list[dict[str, Any]] = []  # of this process, since the last flush
        self._rows: dict[int, str] = {}  # and what was wrong with each

    def saw(self, step: int, replaced: Iterable[Replaced]):
        """Takes what this process replaced in the batch of a step."""
        self._waiting += [{"step": step} | dataclasses.asdict(r) for r in replaced]

    def flush(self):
        """Writes to the ledger what all processes saw; all must call it, before a checkpoint is saved.

        Raises InputError, the same on every process, once there were more rows than the budget has.
        """
        found, self._waiting = processes.gathered(self._waiting), []
        # Where the devices of several processes hold one sample, each of them has read it.
        events = {(event["step"], event["place"]): event for event in found}
        told = collections.Counter((event["step"], event["place"]) for event in found)
        for (step, place), event in sorted(events.items(), key=lambda e: e[0]):
            facts = {name: event[name] for name in ("row", "key", "used", "why")}
            self._ledger.row(step, "replaced", **facts)
            text = f"row {event['row']}, {event['key']}: {event['why']}"
            self._rows.setdefault(event["row"], text)
            if told[step, place] < self._holders_B[place]:
                raise errors.InputError(
                    f"{text}; but another process, whose devices share the sample, could read it, and went "
                    f"on with another picture from step {step} on: give all processes the same {self._data}. "
                    f"The last checkpoint is from before that"
                )
        if len(self._rows) > self._budget:
            shown = "; ".join(list(self._rows.values())[:SHOWN])
            raise errors.InputError(
                f"{len(self._rows)} pictures of {self._data} cannot be read, and data.bad_records is "
                f"{self._budget} ({shown}); {self._ledger.path} has all of them. "
                f"`prepare --verify` says which files to delete and make again"
            )

    def state(self) -> list[tuple[int, str]]:
        """Returns the rows that were replaced so far and what was wrong with each, for a checkpoint."""
        return sorted(self._rows.items())

    def set_state(self, rows: Iterable[tuple[int, str]]):
        """Takes what `state` returned."""
        self._rows = {row: text for row, text in rows}
