"""A plan on disk: the decision about every row of a source, and how it is read.

<dataset>/
  plan/piece-00000-of-00004.npz   per row of a piece: bin (-1 = dropped), size, caption ids, a hash
                                  of the key
  plan/ledger.jsonl               what was dropped: {"key", "reason"}, one per line
  captions.array_record           caption id (the row) -> text, language; each text once
  prompts.jsonl                   prompts and image sizes for evaluating a model trained on this set
  plan.json                       counts, and a hash of each file above; written last
  plan/identity.json              what distinguishes one plan from another; written first

Pictures and features record which plan they belong to: a new plan, made from a source that reads
differently, may number a caption differently.
"""

import dataclasses
import hashlib
import pathlib

import numpy as np

from lidit_jax import errors, files
from lidit_jax.data.buckets import Size


@dataclasses.dataclass(frozen=True)
class Piece:
    """The rows of one piece of the source, in its order.

    key_N: uint64 hashes of the keys. bin_N: index into the plan's bins; -1 = dropped.
    size_Nx2: height and width as judged. caption_M, synthetic_M: caption ids, and whether a
    captioning model wrote them; row r has entries [start_N[r], start_N[r + 1]).
    """

    key_N: np.ndarray
    bin_N: np.ndarray
    size_Nx2: np.ndarray
    start_N: np.ndarray
    caption_M: np.ndarray
    synthetic_M: np.ndarray

    def captions(self, row: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the ids of a row's original and of its synthetic captions."""
        span = slice(self.start_N[row], self.start_N[row + 1])
        ids, synthetic = self.caption_M[span], self.synthetic_M[span]
        return tuple(ids[~synthetic].tolist()), tuple(ids[synthetic].tolist())


class Plan:
    """A plan, opened for reading. Raises InputError if the folder holds none."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        what = "plan (run `prepare` first)"
        remedy = "delete it and run `prepare` again"
        holds = ("bins", "pieces", "sha256", "captions", "counts", "rules")
        self.info = files.read_json(folder / "plan.json", what, remedy=remedy, holds=holds)
        self.bins: list[Size] = [tuple(size) for size in self.info["bins"]]
        self.pieces: int = self.info["pieces"]

    @property
    def identity(self) -> str:
        """What distinguishes it from other plans; "" for one made before plans had an identity."""
        return self.info.get("identity", "")

    def is_whole(self) -> bool:
        """Returns whether every file that is written before plan.json exists."""
        return all((self.folder / name).exists() for name in self.info["sha256"])

    def changed(self) -> list[pathlib.Path]:
        """Returns which of these files exist but differ from what was written. Reads them all."""
        paths = {self.folder / name: written for name, written in self.info["sha256"].items()}
        return [
            path
            for path, written in paths.items()
            if path.exists() and files.checksum(path) != written
        ]

    def check(self, path: pathlib.Path):
        """Raises InputError if `path`, one of these files, differs from what was written."""
        written = self.info["sha256"][path.relative_to(self.folder).as_posix()]
        if files.checksum(path) != written:
            raise errors.InputError(
                f"{path} is not what `prepare` wrote; delete it and run `prepare` again, and keep "
                f"files of your own elsewhere"
            )

    def piece(self, i: int) -> Piece:
        """Returns the rows of piece i. Raises InputError if its file is missing or damaged."""
        path = piece_path(self.folder, i, self.pieces)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Piece(**arrays)
        except Exception as e:  # zipfile, zlib and numpy each raise their own
            if errors.is_unreachable(e):
                raise
            raise errors.InputError(
                f"{path} is missing or damaged; delete plan.json and run `prepare` again"
            ) from e


def check_prompts(path: pathlib.Path):
    """Raises InputError if `path` is a plan's own prompts file but not what was written."""
    if (path.parent / "plan.json").exists() and path == prompts_path(path.parent):
        Plan(path.parent).check(path)


def piece_path(folder: pathlib.Path, i: int, pieces: int) -> pathlib.Path:
    return folder / "plan" / f"piece-{i:05d}-of-{pieces:05d}.npz"


def checksums(folder: pathlib.Path, pieces: int) -> dict[str, str]:
    """Returns the SHA-256 of every file written before plan.json, by its path in `folder`."""
    paths = [piece_path(folder, i, pieces) for i in range(pieces)]
    paths += [ledger_path(folder), captions_path(folder), prompts_path(folder)]
    return {path.relative_to(folder).as_posix(): files.checksum(path) for path in paths}


def identity_path(folder: pathlib.Path) -> pathlib.Path:
    return folder / "plan" / "identity.json"


def ledger_path(folder: pathlib.Path) -> pathlib.Path:
    return folder / "plan" / "ledger.jsonl"


def captions_path(folder: pathlib.Path) -> pathlib.Path:
    return folder / "captions.array_record"


def prompts_path(folder: pathlib.Path) -> pathlib.Path:
    return folder / "prompts.jsonl"


def key_hash(text: str) -> int:
    """Returns a 64-bit hash of a key or a text: plans keep it, and what is drawn depends on it."""
    digest = hashlib.blake2b(text.encode(errors="backslashreplace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
