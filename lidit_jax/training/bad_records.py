"""The samples of a run that could not be read and were replaced: counted, told, and not too many."""

import dataclasses
import pathlib
from collections.abc import Iterable
from typing import Any

from lidit_jax import errors, processes
from lidit_jax.data.pipeline import Replaced
from lidit_jax.training.ledger import Ledger

SHOWN = 3  # of them in the error that ends a run


class BadRecords:
    """What every process keeps of the rows that any process replaced; process 0's ledger has each event.

    budget: how many distinct rows of the data set may be replaced. data: its folder, for the message.
    """

    def __init__(self, budget: int, ledger: Ledger, data: pathlib.Path):
        self._budget, self._ledger, self._data = budget, ledger, data
        self._waiting: list[dict[str, Any]] = []  # of this process, since the last flush
        self._rows: set[int] = set()
        self._told: list[str] = []

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
        for (step, _), event in sorted(events.items()):
            facts = {name: event[name] for name in ("row", "key", "used", "why")}
            self._ledger.row(step, "replaced", **facts)
            if event["row"] not in self._rows:
                self._rows.add(event["row"])
                self._told.append(f"row {event['row']}, {event['key']}: {event['why']}")
        if len(self._rows) > self._budget:
            shown = "; ".join(self._told[:SHOWN])
            raise errors.InputError(
                f"{len(self._rows)} pictures of {self._data} cannot be read, and data.bad_records is "
                f"{self._budget} ({shown}); {self._ledger.path} has all of them. "
                f"`prepare --verify` says which files to delete and make again"
            )

    def state(self) -> list[int]:
        """Returns the rows that were replaced so far, for a checkpoint."""
        return sorted(self._rows)

    def set_state(self, rows: list[int]):
        """Takes what `state` returned."""
        self._rows = set(rows)
