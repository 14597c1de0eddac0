"""The rows of a source while its plan is made, in flat arrays."""

import array
import collections
import dataclasses

import numpy as np

from lidit_jax.data import filters
from lidit_jax.data.judging import HELD_OUT, REASONS, Verdict
from lidit_jax.data.plan import key_hash

# Reasons that depend on other rows; a row has the index of its reason, 0 for none.
LATE = ("", "key-duplicate", filters.DUPLICATE, "limit", "R2-resolution")


@dataclasses.dataclass
class Rows:
    """Every row of the source, and every caption of the rows that passed the rules.

    Hashes are 64 bits, 0 = none. bin_N, late_N and kept_N change while the plan is made.
    """

    starts: list[int]  # first row of each piece, and the end
    captions_dropped: collections.Counter
    key_N: np.ndarray
    url_N: np.ndarray
    sha_N: np.ndarray
    size_Nx2: np.ndarray
    bin_N: np.ndarray
    held_N: np.ndarray
    passed_N: np.ndarray
    start_N: np.ndarray
    text_M: np.ndarray
    synthetic_M: np.ndarray

    def __post_init__(self):
        self.late_N = np.zeros(len(self.key_N), np.uint8)
        self.kept_N = self.passed_N.copy()

    def drop(self, rows: np.ndarray, reason: str):
        self.kept_N[rows], self.bin_N[rows], self.late_N[rows] = False, -1, LATE.index(reason)


class Gathering:
    """Collects `Rows` in flat arrays that grow."""

    def __init__(self):
        self.starts: list[int] = []
        self.captions_dropped: collections.Counter[str] = collections.Counter()
        self.key, self.url, self.sha = (array.array("Q") for _ in range(3))
        self.size, self.bin, self.held = array.array("I"), array.array("h"), array.array("B")
        self.count, self.text, self.synthetic = (array.array(kind) for kind in "BQB")

    def add(self, key: str, verdict: Verdict, url: str, sha: str):
        """Takes the next row of the source."""
        self.key.append(key_hash(key))
        self.url.append(key_hash(url) if url else 0)
        self.sha.append(key_hash(sha) if sha else 0)
        self.size.extend(min(side, 2**32 - 1) for side in verdict.size)
        self.bin.append(verdict.bin)
        self.held.append(verdict.reason == REASONS[HELD_OUT])
        captions = () if verdict.reason else verdict.captions
        self.count.append(len(captions))
        for caption in captions:
            self.text.append(key_hash(caption.text))
            self.synthetic.append(caption.origin == "synthetic")
        self.captions_dropped.update(verdict.captions_dropped)

    def freeze(self) -> Rows:
        bin_N = np.array(self.bin, np.int16)
        start_N = np.concatenate([[0], np.cumsum(np.asarray(self.count, np.int64))])
        return Rows(
            self.starts, self.captions_dropped,
            *(np.asarray(a, np.uint64) for a in (self.key, self.url, self.sha)),
            np.asarray(self.size, np.uint32).reshape(-1, 2), bin_N, np.asarray(self.held, bool),
            bin_N >= 0, start_N, np.asarray(self.text, np.uint64), np.asarray(self.synthetic, bool),
        )  # fmt: skip
