"""Decides about every example of a source before any picture is decoded, and writes the plan.

A plan depends on the source and the recipe alone, so any number of machines may make it at once
and get the same; each then makes its own pieces. A machine that cannot read what another could gets
another plan, and is refused. Planning keeps no text in memory, but some 60 bytes per row, and up to
250 at the end: hashes are sorted, and ArrayRecord keeps an index of what it writes
(`benchmarks/planning.py` measures it).
"""

import collections
import contextlib
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any, BinaryIO, TextIO

import msgpack
import numpy as np
from tqdm import tqdm

from lidit_jax import errors, files
from lidit_jax.data import buckets, filters, plan_texts
from lidit_jax.data.judging import HELD_OUT, REASONS, TRAIN, Recipe, Verdict, judge
from lidit_jax.data.plan import Plan, checksums, identity_path, ledger_path, piece_path
from lidit_jax.data.plan_rows import LATE, Gathering, Rows
from lidit_jax.data.sources.example import Example, Source, Unusable
from lidit_jax.data.sources.images import ImageError

# What to do about some reasons if no picture is left, by source; None: any source.
_REMEDIES = {
    ("caption-missing", "folder"): "the caption of a.jpg is a.txt or a.json beside it, or in "
    "metadata.csv in the folder that `path` names",
    ("image-missing", "folder"): "file_name is a path relative to the folder that `path` names",
    ("image-missing", "webdataset"): "put a sample's files side by side in its tar "
    "(tar --sort=name)",
    ("tar-compressed", "webdataset"): "decompress the tars",
    ("image-unknown", None): "convert the pictures to JPEG, PNG or WebP",
}  # fmt: skip


def make(source: Source, recipe: Recipe, folder: pathlib.Path) -> Plan:
    """Writes the plan of `source`, or returns the one already written.

    Raises InputError if no picture is left, saying what dropped them, and if another plan of the
    same recipe exists or is being made.
    """
    if (folder / "plan.json").exists() and Plan(folder).is_whole():
        return Plan(folder)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        files.atomic(ledger_path(folder)) as path,
        open(path, "w", encoding="utf-8") as ledger_file,
        tempfile.TemporaryFile(dir=folder) as spool,
    ):
        ledger = _Ledger(ledger_file)
        rows = _judge_all(source, recipe, ledger, spool).freeze()
        _drop_late(rows, recipe)
        bins = _merge_small(rows, recipe)
        if not rows.kept_N.any():
            raise errors.InputError(f"no picture is left: {_why_none(rows, ledger, source)}")
        id_M = plan_texts.numbered(rows)
        identity = _claim(folder, rows, id_M, bins)
        info = _write(rows, id_M, bins, recipe, folder)
        kept = _spooled(rows, spool, ledger)
        info |= plan_texts.write(rows, id_M, kept, source, recipe, bins, folder)
    info |= {"rows": len(rows.key_N) + ledger.unusable, "dropped": ledger.most_common()}
    info |= {"identity": identity, "sha256": checksums(folder, recipe.pieces)}
    files.write_json(folder / "plan.json", info)
    return Plan(folder)


def _claim(folder: pathlib.Path, rows: Rows, id_M: np.ndarray, bins: buckets.Bins) -> str:
    """Claims the folder for the plan and returns its identity.

    Raises InputError if the folder is another plan's.
    """
    digest = hashlib.sha256(json.dumps([bins.sizes, rows.starts]).encode())
    arrays = (
        rows.key_N,
        rows.size_Nx2,
        rows.bin_N,
        rows.start_N,
        rows.text_M,
        rows.synthetic_M,
        id_M,
    )
    for array_N in arrays:
        digest.update(np.ascontiguousarray(array_N).data)
    ours = {
        "identity": digest.hexdigest()[:16],
        "kept": int(rows.kept_N.sum()),
        "rows": len(rows.key_N),
    }
    path, pieces = identity_path(folder), len(rows.starts) - 1
    files.write_json(path, ours | {"pieces": pieces}, first=True)
    first = files.read_json(path, "identity of a plan", holds=tuple(ours))
    if first.get("pieces", pieces) != pieces:
        raise errors.InputError(
            f"{folder} was started with {first['pieces']} pieces, but data.shards is {pieces}; "
            f"set it to the former, or use another folder"
        )
    if first["identity"] != ours["identity"]:
        raise errors.InputError(
            f"{folder} has another plan, {first['kept']} pictures of {first['rows']} rows; now "
            f"there are {ours['kept']} of {ours['rows']}: the source has changed, or some of it "
            f"could not be read then or now; when all of it can be read, use a new folder"
        )
    return ours["identity"]


class _Ledger:
    """Writes a line per drop and counts drops per reason; "trained-on" is only counted."""

    def __init__(self, file: TextIO):
        self._file, self.dropped, self.unusable = file, collections.Counter(), 0

    def drop(self, key: str, reason: str):
        self.dropped[reason] += 1
        if reason == REASONS[TRAIN]:
            return
        self._file.write(json.dumps({"key": key, "reason": reason}, ensure_ascii=False) + "\n")

    def most_common(self) -> dict[str, int]:
        return dict(self.dropped.most_common())


def _judge_all(source: Source, recipe: Recipe, ledger: _Ledger, spool: BinaryIO) -> Gathering:
    """Judges every row; texts of those that pass go to the spool, those that fail to the ledger."""
    rows = Gathering()
    with tqdm(total=len(source), desc="planning", unit="row", mininterval=2) as progress:
        for i in range(recipe.pieces):
            rows.starts.append(len(rows.key))
            for example in source.piece(i, recipe.pieces):
                progress.update()
                if isinstance(example, Unusable):
                    ledger.unusable += 1
                    ledger.drop(example.key, example.reason)
                    continue
                verdict, url, sha = _judge_content(example, recipe)
                rows.add(example.key, verdict, url, sha)
                if verdict.reason:
                    ledger.drop(example.key, verdict.reason)
                    continue
                texts = [(c.text, c.language or filters.language(c.text)) for c in verdict.captions]
                spool.write(msgpack.packb((example.key, texts)))
    rows.starts.append(len(rows.key))
    return rows


def _judge_content(example: Example, recipe: Recipe) -> tuple[Verdict, str, str]:
    """Returns the verdict, and url and content hash if rows are chosen or compared by them."""
    verdict, url = judge(example, recipe), str(example.metadata.get("url") or "")
    if verdict.reason not in (None, REASONS[HELD_OUT]):
        return verdict, "", ""
    if filters.DUPLICATE not in recipe.rules:
        return verdict, url if recipe.limit else "", ""
    try:
        return verdict, url, str(example.metadata.get("sha256") or example.picture.digest())
    except ImageError as e:
        return Verdict(e.reason), "", ""


def _drop_late(rows: Rows, recipe: Recipe):
    """Drops rows because of other rows: a key or picture seen before, and rows past the limit."""
    rows.drop(_repeated(rows.key_N, rows.kept_N), "key-duplicate")
    if filters.DUPLICATE in recipe.rules:
        for hash_N in (rows.url_N, rows.sha_N):
            among_N = rows.kept_N & (hash_N > 0)
            held_out = hash_N[rows.held_N & (hash_N > 0)]  # no copy of those may be trained on
            rows.drop(np.flatnonzero(among_N & np.isin(hash_N, held_out)), filters.DUPLICATE)
            rows.drop(_repeated(hash_N, rows.kept_N & among_N), filters.DUPLICATE)
    if recipe.limit and rows.kept_N.sum() > recipe.limit:
        order_N = np.where(rows.url_N > 0, rows.url_N, rows.key_N)
        kept = np.flatnonzero(rows.kept_N)
        rows.drop(kept[np.argsort(order_N[kept], kind="stable")[recipe.limit :]], "limit")


def _repeated(hash_N: np.ndarray, among_N: np.ndarray) -> np.ndarray:
    """Returns the rows of `among_N` whose hash occurs in an earlier one of them."""
    rows = np.flatnonzero(among_N)
    _, first = np.unique(hash_N[rows], return_index=True)
    return np.delete(rows, first)


def _merge_small(rows: Rows, recipe: Recipe) -> buckets.Bins:
    """Moves the pictures of small bins to the nearest bin that stays, and renumbers the bins.

    If R2 is a rule, it judges the moved pictures again, since their new bin may enlarge them.
    """
    counts = np.bincount(rows.bin_N[rows.kept_N], minlength=len(recipe.bins.sizes))
    stay = buckets.merge_small(counts.tolist(), recipe.least_of_part)
    bins = recipe.bins.subset([recipe.bins.sizes[b] for b in stay])
    number = np.full(len(counts), -1, np.int16)
    number[list(stay)] = range(len(stay))
    moved = np.flatnonzero(rows.kept_N & (number[rows.bin_N] < 0))
    if len(moved):
        print(
            f"{len(moved):,} pictures moved to other bins: "
            f"theirs have fewer than data.min_bin={recipe.least_of_part}"
        )
    rows.bin_N[rows.kept_N] = number[rows.bin_N[rows.kept_N]]
    for row in moved:
        size = tuple(rows.size_Nx2[row].tolist())
        rows.bin_N[row] = bins.assign(size)
        pair = filters.Pair("", size, bins.sizes[rows.bin_N[row]], recipe.side, {})
        if "R2-resolution" in recipe.rules and not filters.is_large(pair):
            rows.drop(np.array([row]), "R2-resolution")
    return bins


def _spooled(
    rows: Rows, spool: BinaryIO, ledger: _Ledger
) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Yields each kept row with its captions' (text, language); late drops go to the ledger."""
    spool.seek(0)
    passed = np.flatnonzero(rows.passed_N)
    for row, (key, texts) in zip(passed, msgpack.Unpacker(spool), strict=True):
        if rows.late_N[row]:
            ledger.drop(key, LATE[rows.late_N[row]])
        else:
            yield int(row), texts


def _write(
    rows: Rows, id_M: np.ndarray, bins: buckets.Bins, recipe: Recipe, folder: pathlib.Path
) -> dict[str, Any]:
    """Writes the pieces, and returns their entries for plan.json."""
    counts = np.zeros((len(bins.sizes), recipe.pieces), int)
    for i in range(recipe.pieces):
        span = slice(rows.starts[i], rows.starts[i + 1])
        first, last = rows.start_N[span.start], rows.start_N[span.stop]
        bin_N = rows.bin_N[span]
        counts[:, i] = np.bincount(bin_N[bin_N >= 0], minlength=len(bins.sizes))
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(files.atomic(piece_path(folder, i, recipe.pieces)))
            np.savez(
                stack.enter_context(open(path, "wb")),
                key_N=rows.key_N[span], bin_N=bin_N, size_Nx2=rows.size_Nx2[span],
                start_N=rows.start_N[span.start : span.stop + 1] - first,
                caption_M=id_M[first:last], synthetic_M=rows.synthetic_M[first:last],
            )  # fmt: skip
    kept_bin_Nx2 = np.asarray(bins.sizes)[rows.bin_N[rows.kept_N]]
    return {
        "pieces": recipe.pieces,
        "bins": [list(size) for size in bins.sizes],
        "counts": counts.tolist(),
        "enlarged": int((rows.size_Nx2[rows.kept_N] < kept_bin_Nx2).any(1).sum()),
        "captions_dropped": dict(rows.captions_dropped.most_common()),
        "rules": list(recipe.rules),
        "rules_hash": filters.rules_hash(recipe.rules),
    }


def _why_none(rows: Rows, ledger: _Ledger, source: Source) -> str:
    """Returns the number of drops per reason, and what to do."""
    name = source.describe()["name"]
    late = collections.Counter(LATE[i] for i in rows.late_N[rows.late_N > 0])
    reasons = (late + ledger.dropped).most_common()
    if not reasons:
        return f"source {name} is empty"
    remedies = [
        _REMEDIES[reason, of]
        for reason, _ in reasons
        for of in (name, None)
        if (reason, of) in _REMEDIES
    ]
    return "; ".join([", ".join(f"{reason} dropped {n}" for reason, n in reasons), *remedies])
