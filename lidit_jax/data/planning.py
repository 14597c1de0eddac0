"""What becomes of every example of a source, decided before any picture is decoded.

<dataset>/
  plan/piece-00000-of-00004.npz   per row of a piece: bin (-1 = dropped), size, caption ids, a hash of the key
  plan/ledger.jsonl               what was dropped: {"key", "reason"}, one per line
  captions.array_record           caption id (the row) -> text, language; each text once
  prompts.txt                     prompts to judge a model of this set by, one per line
  plan.json                       counts; written last

A plan depends on the source and the recipe alone, so any number of machines may make it at once
and find the same; each then makes its own pieces of it. It takes 50 bytes of memory a row.
"""

import array
import bisect
import collections
import dataclasses
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
from lidit_jax.data import buckets, filters, records
from lidit_jax.data.sources.example import Caption, Example, Source, Unusable
from lidit_jax.data.sources.images import ImageError

JUDGED = 64  # prompts in prompts.txt
MOST_CAPTIONS = 255  # of one picture
HELD_OUT = "held-out"  # the reason of an example that no rule drops, but `Recipe.hold_out`
PREVIEWED = 16  # prompts of the training previews, if the recipe names none
LENGTHS = (
    20,
    40,
    60,
    80,
    120,
    160,
    240,
    320,
    480,
    1000,
)  # upper edges of plan.json's caption lengths


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a source is planned.

    bins: the sizes that pictures are trained at. side: the stage's side, in pixels.
    rules: ids in judging order. pieces: how many files the rows go to.
    least: a bin of fewer pictures goes to the nearest other bin.
    limit: keep this many pictures, chosen by a hash of url or key, in any order the same; 0 = all.
    hold_out: the share of the keys, chosen by hash, that is left out to judge a model by.
    preview: captions to look at while training.
    """

    bins: buckets.Bins
    side: int
    rules: tuple[str, ...]
    pieces: int
    least: int = 1
    limit: int = 0
    hold_out: float = 0.0
    preview: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Piece:
    """The rows of one piece of the source, in its order.

    key_N: uint64 hashes of the keys. bin_N: index into the plan's bins; -1 = dropped.
    size_Nx2: height and width as judged. caption_M, synthetic_M: caption ids, and whether a
    captioning model wrote them; those of row r are [start_N[r], start_N[r + 1]).
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
    """A plan on disk, opened for reading."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.info = files.read_json(folder / "plan.json", "plan (run `prepare` first)")
        self.bins: list[buckets.Size] = [tuple(size) for size in self.info["bins"]]
        self.pieces: int = self.info["pieces"]

    def piece(self, i: int) -> Piece:
        """Returns the rows of piece i. Raises InputError if its file is missing or damaged."""
        path = _piece_path(self.folder, i, self.pieces)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Piece(**arrays)
        except Exception as e:  # zipfile, zlib and numpy each have their own
            raise errors.InputError(
                f"{path} is missing or damaged; delete plan.json and run `prepare` again"
            ) from e


def make(source: Source, recipe: Recipe, folder: pathlib.Path) -> Plan:
    """Writes the plan of `source`, or finds it written.

    Raises InputError if no picture is left, saying what dropped them.
    """
    if not (folder / "plan.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with (
            files.atomic(folder / "plan" / "ledger.jsonl") as path,
            open(path, "w", encoding="utf-8") as ledger,
            tempfile.TemporaryFile(dir=folder) as spool,
        ):
            draft = _Draft(ledger, spool)
            _judge_all(draft, source, recipe)
            _drop_late(draft, recipe)
            bins = _merge_small(draft, recipe)
            if not draft.kept_N.any():
                raise errors.InputError(f"no picture is left of {len(draft)}: {_told(draft)}")
            _write(draft, bins, source, recipe, folder)
    return Plan(folder)


class _Draft:
    """Every row so far, in flat arrays; the texts of those that passed are in a spool on disk."""

    def __init__(self, ledger: TextIO, spool: BinaryIO):
        self.ledger, self.spool = ledger, spool
        self.starts: list[int] = []  # first row of each piece
        self.dropped: collections.Counter[str] = collections.Counter()
        self.captions_dropped: collections.Counter[str] = collections.Counter()
        self.key, self.url, self.sha = (array.array("Q") for _ in range(3))
        self.height, self.width = array.array("I"), array.array("I")
        self.bin, self.count = array.array("h"), array.array("B")
        self.text, self.synthetic = array.array("Q"), array.array("B")

    def __len__(self):
        return len(self.key)

    def add(self, key: str, verdict: "Verdict", url: str, sha: str):
        """Takes the next row of the source."""
        self.key.append(key_hash(key))
        self.url.append(key_hash(url) if url else 0)
        self.sha.append(key_hash(sha) if sha else 0)
        self.height.append(min(verdict.size[0], 2**32 - 1))
        self.width.append(min(verdict.size[1], 2**32 - 1))
        self.bin.append(verdict.bin)
        captions = () if verdict.reason else verdict.captions
        self.count.append(len(captions))
        for caption in captions:
            self.text.append(key_hash(caption.text))
            self.synthetic.append(caption.origin == "synthetic")
        self.captions_dropped.update(verdict.captions_dropped)
        if verdict.reason:
            self.drop(key, verdict.reason)
        else:
            texts = [(c.text, c.language or filters.language(c.text)) for c in captions]
            self.spool.write(msgpack.packb((key, texts)))

    def drop(self, key: str, reason: str):
        self.dropped[reason] += 1
        self.ledger.write(json.dumps({"key": key, "reason": reason}, ensure_ascii=False) + "\n")

    def spooled(self) -> Iterator[tuple[int, str, list[tuple[str, str]]]]:
        """Yields row, key, and (text, language) of each caption, of every row that passed the rules."""
        self.spool.seek(0)
        rows = np.flatnonzero(self.passed_N)
        for row, (key, texts) in zip(rows, msgpack.Unpacker(self.spool), strict=True):
            yield int(row), key, texts

    def freeze(self):
        """Turns what is worked on next into numpy arrays: no row comes any more."""
        self.key_N, self.url_N, self.sha_N = map(np.asarray, (self.key, self.url, self.sha))
        self.bin_N = np.asarray(self.bin).copy()
        self.passed_N = self.bin_N >= 0
        self.kept_N = self.passed_N.copy()


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the rules say of one example: `reason` is None where it stays, and `bin` -1 where it does not.

    captions: those that stay. captions_dropped: for each of the others beside them, the rule.
    """

    reason: str | None
    size: buckets.Size = (0, 0)
    bin: int = -1
    captions: tuple[Caption, ...] = ()
    captions_dropped: tuple[str, ...] = ()


def _judge_all(draft: _Draft, source: Source, recipe: Recipe):
    hashes = filters.DUPLICATE in recipe.rules
    progress = tqdm(total=len(source), desc="planning", unit="row", mininterval=2)
    for i in range(recipe.pieces):
        draft.starts.append(len(draft))
        for example in source.piece(i, recipe.pieces):
            progress.update()
            if isinstance(example, Unusable):
                draft.drop(example.key, example.reason)
                continue
            verdict, url, sha = judge(example, recipe), "", ""
            if hashes and not verdict.reason:
                url = example.metadata.get("url") or ""
                try:
                    sha = example.metadata.get("sha256") or example.picture.digest()
                except ImageError as e:
                    verdict = Verdict(e.reason)
            draft.add(example.key, verdict, url, sha)
    progress.close()
    draft.starts.append(len(draft))
    draft.freeze()


def judge(example: Example, recipe: Recipe) -> Verdict:
    """Returns the verdict on an example: each caption with its picture is one pair for the rules.

    A pair that fails takes its caption away; the picture goes with its last caption, for the reason
    of its first.
    """
    captions = [c for c in map(_stripped, example.captions) if c.text][:MOST_CAPTIONS]
    if not captions:
        return Verdict("caption-empty")
    try:
        size = _known_size(example.metadata) or example.picture.size()
    except ImageError as e:
        return Verdict(e.reason)
    bin = recipe.bins.assign(size)
    of_picture = (size, recipe.bins.sizes[bin], recipe.side, example.metadata)
    reasons = [
        filters.first_failing(filters.Pair(c.text, *of_picture), recipe.rules) for c in captions
    ]
    failed = tuple(r for r in reasons if r)
    if len(failed) == len(captions):
        return Verdict(failed[0], size)
    kept = tuple(c for c, reason in zip(captions, reasons) if not reason)
    if key_hash(f"hold out {example.key}") < recipe.hold_out * 2**64:
        return Verdict(HELD_OUT, size, captions=kept)
    return Verdict(None, size, bin, kept, failed)


def _stripped(caption: Caption) -> Caption:
    text = caption.text.strip()
    return caption if text == caption.text else dataclasses.replace(caption, text=text)


def _known_size(metadata: dict[str, Any]) -> buckets.Size | None:
    height, width = metadata.get("height"), metadata.get("width")
    known = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
    return (height, width) if known else None


def _drop_late(draft: _Draft, recipe: Recipe):
    """Drops what only shows beside other rows: a key or a picture seen before, and what is past the limit."""
    draft.late = {}
    _drop_rows(draft, _repeated(draft.key_N, draft.kept_N), "key-duplicate")
    if filters.DUPLICATE in recipe.rules:
        for hash_N in (draft.url_N, draft.sha_N):
            _drop_rows(draft, _repeated(hash_N, draft.kept_N & (hash_N > 0)), filters.DUPLICATE)
    if recipe.limit and draft.kept_N.sum() > recipe.limit:
        order_N = np.where(draft.url_N > 0, draft.url_N, draft.key_N)
        rows = np.flatnonzero(draft.kept_N)
        _drop_rows(draft, rows[np.argsort(order_N[rows], kind="stable")[recipe.limit :]], "limit")


def _drop_rows(draft: _Draft, rows: np.ndarray, reason: str):
    draft.kept_N[rows] = False
    draft.bin_N[rows] = -1
    draft.late |= dict.fromkeys(rows.tolist(), reason)


def _repeated(hash_N: np.ndarray, among_N: np.ndarray) -> np.ndarray:
    """Returns the rows of `among_N` whose hash an earlier one of them has."""
    rows = np.flatnonzero(among_N)
    _, first = np.unique(hash_N[rows], return_index=True)
    return np.delete(rows, first)


def _merge_small(draft: _Draft, recipe: Recipe) -> buckets.Bins:
    """Gives the pictures of small bins to the nearest bin that stays, and numbers the bins anew."""
    counts = np.bincount(draft.bin_N[draft.kept_N], minlength=len(recipe.bins.sizes))
    stay = buckets.merge_small(counts.tolist(), recipe.least)
    bins = recipe.bins.subset([recipe.bins.sizes[b] for b in stay])
    number = np.full(len(counts), -1)
    number[list(stay)] = range(len(stay))
    moved = draft.kept_N & (number[draft.bin_N] < 0)
    draft.bin_N[draft.kept_N] = number[draft.bin_N[draft.kept_N]]
    for row in np.flatnonzero(moved):
        draft.bin_N[row] = bins.assign((draft.height[row], draft.width[row]))
    return bins


def _write(draft: _Draft, bins: buckets.Bins, source: Source, recipe: Recipe, folder: pathlib.Path):
    """Writes every file of the plan, plan.json last."""
    count_N = np.asarray(draft.count, np.int64)
    start_N = np.concatenate([[0], np.cumsum(count_N)])
    id_M, distinct = _number_captions(draft, np.repeat(draft.kept_N, count_N))
    facts = _write_captions(draft, id_M, start_N, distinct, source, recipe, folder)
    arrays = {
        "key_N": draft.key_N,
        "bin_N": draft.bin_N.astype(np.int16),
        "size_Nx2": np.stack([np.asarray(draft.height), np.asarray(draft.width)], 1),
    }
    synthetic_M = np.asarray(draft.synthetic, bool)
    counts = np.zeros((len(bins.sizes), recipe.pieces), int)
    for i in range(recipe.pieces):
        rows = slice(draft.starts[i], draft.starts[i + 1])
        first, last = start_N[rows.start], start_N[rows.stop]
        bin_N = draft.bin_N[rows]
        counts[:, i] = np.bincount(bin_N[bin_N >= 0], minlength=len(bins.sizes))
        with files.atomic(_piece_path(folder, i, recipe.pieces)) as path, open(path, "wb") as f:
            np.savez(
                f,
                **{name: a[rows] for name, a in arrays.items()},
                start_N=start_N[rows.start : rows.stop + 1] - first,
                caption_M=id_M[first:last],
                synthetic_M=synthetic_M[first:last],
            )
    info = {
        "pieces": recipe.pieces,
        "rows": len(draft),
        "bins": [list(size) for size in bins.sizes],
        "counts": counts.tolist(),
        "enlarged": _count_enlarged(draft, bins),
        "dropped": dict(draft.dropped.most_common()),
        "captions_dropped": dict(draft.captions_dropped.most_common()),
        "rules": list(recipe.rules),
        "rules_hash": filters.rules_hash(recipe.rules),
    }
    files.write_json(folder / "plan.json", info | facts)


def _number_captions(draft: _Draft, kept_M: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns the id of every caption, numbered as they first come in kept rows, and how many there are.

    Texts are told apart by 64-bit hashes: two of 60 million are taken for one with probability 1e-4.
    """
    id_M = np.zeros(len(kept_M), np.uint32)
    _, first, inverse = np.unique(
        np.asarray(draft.text)[kept_M], return_index=True, return_inverse=True
    )
    number = np.empty(len(first), np.uint32)
    number[np.argsort(first)] = np.arange(len(first), dtype=np.uint32)
    id_M[kept_M] = number[inverse]
    return id_M, len(first)


def _write_captions(draft, id_M, start_N, distinct, source, recipe, folder) -> dict[str, Any]:
    """Writes captions and prompts, drops late rows' keys into the ledger, and returns what was counted."""
    prompts = _Chosen(source.prompts(JUDGED), draft, id_M, start_N, JUDGED)
    preview = _Chosen(
        list(recipe.preview) or source.prompts(PREVIEWED), draft, id_M, start_N, PREVIEWED
    )
    languages, lengths = collections.Counter(), [0] * (len(LENGTHS) + 1)

    def rows() -> Iterator[bytes]:
        written = 0
        for row, key, texts in draft.spooled():
            if row in draft.late:
                draft.drop(key, draft.late[row])
                continue
            for place, (text, language) in enumerate(texts, start_N[row]):
                caption = int(id_M[place])
                preview.see(text, caption), prompts.see(text, caption)
                if caption == written:
                    languages[language] += 1
                    lengths[bisect.bisect_left(LENGTHS, len(text))] += 1
                    written += 1
                    yield msgpack.packb({"text": text, "language": language})
        for text in preview.number_unseen(distinct):
            yield msgpack.packb({"text": text, "language": filters.language(text)})

    records.write_records(folder / "captions.array_record", rows())
    with files.atomic(folder / "prompts.txt") as path:
        path.write_text("".join(f"{text}\n" for text in prompts.texts()), encoding="utf-8")
    return {
        "captions": distinct + preview.added,
        "preview": [preview.ids[text] for text in preview.texts()],
        "languages": dict(languages.most_common()),
        "caption_lengths": {"edges": list(LENGTHS), "counts": lengths},
    }


class _Chosen:
    """The texts of some captions: those given, or `count` of the set's own, evenly spaced over its rows."""

    def __init__(self, given: list[str], draft: _Draft, id_M, start_N, count: int):
        self._given, self.ids, self.added = given, {}, 0
        rows = np.flatnonzero(draft.kept_N)
        spaced = [rows[i * len(rows) // count] for i in range(min(count, len(rows)))]
        self._wanted = set() if given else {int(id_M[start_N[row]]) for row in spaced}
        self._known = set(given)

    def see(self, text: str, caption: int):
        if caption in self._wanted or text in self._known:
            self.ids[text] = caption

    def number_unseen(self, first: int) -> list[str]:
        """Gives ids from `first` on to the given texts that no picture bears, and returns those."""
        unseen = [text for text in dict.fromkeys(self._given) if text not in self.ids]
        self.ids |= {text: first + i for i, text in enumerate(unseen)}
        self.added = len(unseen)
        return unseen

    def texts(self) -> list[str]:
        return self._given or list(self.ids)


def _count_enlarged(draft: _Draft, bins: buckets.Bins) -> int:
    """Returns how many kept pictures are smaller than their bin, and are scaled up to it."""
    size_Nx2 = np.stack([np.asarray(draft.height), np.asarray(draft.width)], 1)[draft.kept_N]
    bin_Nx2 = np.asarray(bins.sizes)[draft.bin_N[draft.kept_N]]
    return int((size_Nx2 < bin_Nx2).any(1).sum())


def _told(draft: _Draft) -> str:
    reasons = collections.Counter(draft.late.values()) + draft.dropped
    return (
        ", ".join(f"{reason} dropped {n}" for reason, n in reasons.most_common()) or "it is empty"
    )


def _piece_path(folder: pathlib.Path, i: int, pieces: int) -> pathlib.Path:
    return folder / "plan" / f"piece-{i:05d}-of-{pieces:05d}.npz"


def key_hash(key: str) -> int:
    """Returns the 64-bit hash that a plan keeps of a key or a text."""
    return int.from_bytes(
        hashlib.blake2b(key.encode(errors="replace"), digest_size=8).digest(), "little"
    )
