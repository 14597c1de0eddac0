"""The interface of a benchmark: prompts from official files, records from judges, pure scoring."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lidit_jax.evaluation.intervals import Tally
from lidit_jax.evaluation.judges.records import Judges

Record = dict[str, Any]  # what judges said about one picture, as JSON values

MODES = ("reference", "fixed")  # like the published code, including its quirks; repaired


@dataclasses.dataclass(frozen=True)
class Item:
    """A benchmark's prompt. group: its tag, category or source; meta: JSON values for scoring."""

    id: str
    text: str
    group: str
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Tallies:
    """The results of a benchmark: its metrics over the items, in their order, and means of metrics.

    scale: what a value of 1 is printed as: 1 or 100.
    units: for each item, the set of similar items that it belongs to, all in one group, which are
      resampled together; None = each item is a set of its own.
    notes: other remarks about the metrics, printed below the table.
    """

    metrics: Mapping[str, Tally]
    averages: Mapping[str, Sequence[str]]
    scale: float = 1.0
    units: Sequence[int] | None = None
    notes: Sequence[str] = ()


class Benchmark(Protocol):
    """Stateless; one object for each name in BENCHMARKS."""

    official: bool  # whether its prompts come from official files; otherwise it makes them itself
    version: int  # incremented when a change of `judge` changes a record
    per_prompt: int  # pictures per prompt in the published protocol
    judges: tuple[str, ...]  # fields of Judges that it uses
    modes: bool  # whether others have published code for it
    any_words: bool  # whether its detector must find more than COCO's 80 classes
    paper: Mapping[str, Mapping[str, float]]  # row of Table 1 -> metric -> the paper's number

    def items(self, folder: Path | None) -> list[Item]:
        """Returns its prompts, from the official files in a folder, if it has any.

        Raises InputError if a file is missing, or is not the published one (its count, its hash).
        """

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns everything about a picture that scoring needs, in any mode."""

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics; records[i] has a record for each picture of item i. Pure."""
