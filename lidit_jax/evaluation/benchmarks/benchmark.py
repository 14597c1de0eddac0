"""What a benchmark is: prompts from its official files, records from judges, and a pure scoring."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from lidit_jax.evaluation.intervals import Tally
from lidit_jax.evaluation.judges.records import Judges

Record = dict[str, Any]  # what judges said of one picture, as JSON holds it

MODES = ("reference", "fixed")  # as the published code computes it, its quirks included; repaired


@dataclasses.dataclass(frozen=True)
class Item:
    """A prompt of a benchmark. `group` is its tag, category or source; `meta` what scoring needs, as JSON."""

    id: str
    text: str
    group: str
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Tallies:
    """What a benchmark found: its metrics over the items, in their order, and means of metrics.

    scale: what a value of 1 is printed as: 1 or 100.
    units: of each item, the set of items that it belongs to, all of one group, which are alike and are
      resampled together; None = each is one of its own.
    notes: what else they rest on, told below the table.
    """

    metrics: Mapping[str, Tally]
    averages: Mapping[str, Sequence[str]]
    scale: float = 1.0
    units: Sequence[int] | None = None
    notes: Sequence[str] = ()


class Benchmark(Protocol):
    """Stateless; one object for each name in BENCHMARKS."""

    official: bool  # whether its prompts are of official files; else it makes them itself
    version: int  # raised when a change of `judge` changes a record
    per_prompt: int  # pictures that the published protocol draws of each prompt
    judges: tuple[str, ...]  # fields of Judges that it asks
    modes: bool  # whether it is one of those that others have published code for
    any_words: bool  # whether its detector is asked for more than COCO's 80 classes
    paper: Mapping[str, Mapping[str, float]]  # row of Table 1 -> metric -> the paper's number

    def items(self, folder: Path | None) -> list[Item]:
        """Returns its prompts, from the official files in a folder, if it has any.

        Raises InputError if a file is missing, or is not the published one (its count, its hash).
        """

    def judge(self, image: np.ndarray, item: Item, judges: Judges) -> Record:
        """Returns all that scoring in any mode needs of a picture."""

    def score(
        self, items: Sequence[Item], records: Sequence[Sequence[Record]], mode: str
    ) -> Tallies:
        """Returns the metrics; records[i] are those of item i's pictures. Pure."""
