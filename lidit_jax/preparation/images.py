"""The pictures of a plan, piece by piece: decoded, encoded by the VAE, written by aspect bin.

A piece is read from the source once, in order. Its files are renamed together, and then a marker is
written, which shows that it is complete and has what the whole set needs to know of it.
"""

import collections
import contextlib
import dataclasses
import json
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
from tqdm import tqdm

from lidit_jax import errors, files, sharding
from lidit_jax.data import dataset, decoding, records
from lidit_jax.data.plan import Piece, Plan, key_hash, ledger_path
from lidit_jax.data.sources.example import Example, Source
from lidit_jax.models.vae import Codec, make_codec
from lidit_jax.moments import Moments
from lidit_jax.share import Share
from lidit_jax.training.config import DataConfig

BATCH = 32  # pictures that the VAE encodes at once
STD_LEAST = 1e-6  # of a latent channel that never varies
NOT_FINITE = "latent-not-finite"  # the reason for dropping a picture whose latent is not finite


def is_whole(plan: Plan, piece: int) -> bool:
    """Returns whether a piece of this plan is written: its marker, and every file that it names."""
    path = dataset.image_marker(plan.folder, piece, plan.pieces)
    if not path.exists():
        return False
    marker = read_marker(path)
    if marker.get("plan", "") != plan.identity:
        return False
    paths = [dataset.image_path(plan.folder, size, piece, plan.pieces) for size in plan.bins]
    return all(path.exists() for path, count in zip(paths, marker["counts"]) if count)


def read_marker(path: pathlib.Path) -> dict:
    """Returns a piece's marker. Raises InputError if it is damaged."""
    holds = ("counts", "sha256", "dropped", "mended", "ledger", "latents")
    return files.read_json(path, "marker of a piece", remedy=dataset.REMEDY, holds=holds)


def write(data: DataConfig, source: Source, plan: Plan, share: Share, codec: Codec | None = None):
    """Writes the pieces of this share that are missing.

    codec: makes the latents; None uses the config's, on every device of this machine.
    """
    missing = [i for i in share.of(plan.pieces) if not is_whole(plan, i)]
    if not missing:
        return
    codec = codec or make_codec(data.codec).on(sharding.copies())
    total = sum(sum(counts[i] for i in missing) for counts in plan.info["counts"])
    with (
        tqdm(total=total, desc="pictures", unit="img", mininterval=2) as progress,
        decoding.decoders(data.workers) as decode,
    ):
        for i in missing:
            (plan.folder / "dataset.json").unlink(
                missing_ok=True
            )  # written again when all pieces exist
            _PieceWriter(plan, i, codec, progress).write(source, decode)


@dataclasses.dataclass(frozen=True)
class _Planned:
    """A kept row of a piece: its bin, and what is stored beside its latent."""

    key: str
    metadata: dict[str, Any]
    bin: int
    captions: tuple[int, ...]
    synthetic: tuple[int, ...]

    def record(self, latent_HxWxC: np.ndarray) -> records.ImageRecord:
        return records.ImageRecord(
            self.key, latent_HxWxC, self.captions, self.synthetic, self.metadata
        )


def planned(source: Source, plan: Plan, piece: int) -> Iterator[tuple[_Planned, decoding.Job]]:
    """Yields the rows of a piece that the plan keeps, each with the decoding job of its picture.

    Raises InputError if the source has changed since the plan was made.
    """
    checked = "R3-shape" in plan.info["rules"]
    rows: Piece = plan.piece(piece)
    examples = (e for e in source.piece(piece, plan.pieces) if isinstance(e, Example))
    count = 0
    for row, example in enumerate(examples):
        count += 1
        if row >= len(rows.key_N) or key_hash(example.key) != rows.key_N[row]:
            raise _changed(plan, f"row {row} of piece {piece} is now {example.key!r}")
        if rows.bin_N[row] >= 0:
            bin = int(rows.bin_N[row])
            natural = tuple(rows.size_Nx2[row].tolist()) if checked else None
            job = decoding.Job(example.picture, plan.bins[bin], natural)
            yield _Planned(example.key, example.metadata, bin, *rows.captions(row)), job
    if count != len(rows.key_N):
        raise _changed(plan, f"piece {piece} had {len(rows.key_N)} rows, and now has {count}")


def _changed(plan: Plan, how: str) -> errors.InputError:
    return errors.InputError(
        f"the source has changed since {plan.folder} was planned: {how}; "
        "prepare it into a new folder"
    )


class _PieceWriter:
    """Writes one piece; a bin's pictures wait until they fill a batch for the VAE."""

    def __init__(self, plan: Plan, piece: int, codec: Codec, progress: tqdm):
        self.plan, self.piece, self.place = plan, piece, (piece, plan.pieces)
        self.codec, self.progress = codec, progress
        self.waiting: list[list] = [[] for _ in plan.bins]
        self.counts = [0] * len(plan.bins)
        self.ledger: list[tuple[str, str]] = []
        self.dropped, self.mended = collections.Counter(), collections.Counter()
        self.latents = Moments(codec.channels)

    def write(self, source: Source, decode: decoding.Decode):
        """Reads the source's piece, writes its files and, last, its marker."""
        bins = range(len(self.plan.bins))
        paths = [dataset.image_path(self.plan.folder, s, *self.place) for s in self.plan.bins]
        expected = [counts[self.piece] for counts in self.plan.info["counts"]]
        for path in paths:
            files.remove_leftovers(path)
        with contextlib.ExitStack() as stack:
            self.writers = [
                stack.enter_context(records.writing(path)) if n else None
                for path, n in zip(paths, expected)
            ]
            under_way: collections.deque[_Planned] = collections.deque()
            for decoded in decode(self._jobs(source, under_way)):
                self._take(under_way.popleft(), decoded)
                self.progress.update()
            for bin in bins:
                self._encode(bin)
        for path, n in zip(paths, self.counts):
            if not n:
                path.unlink(missing_ok=True)
        marker = {
            "plan": self.plan.identity,
            "counts": self.counts,
            "sha256": [files.checksum(path) if n else "" for path, n in zip(paths, self.counts)],
            "dropped": dict(self.dropped.most_common()),
            "mended": dict(self.mended.most_common()),
            "ledger": self.ledger,
            "latents": self.latents.to_json(),
        }
        files.write_json(dataset.image_marker(self.plan.folder, *self.place), marker)

    def _jobs(self, source, under_way):
        """Yields the decoding job of each planned row, and queues the row in `under_way`."""
        for row, job in planned(source, self.plan, self.piece):
            under_way.append(row)
            yield job

    def _take(self, row: _Planned, decoded: decoding.Decoded):
        reasons = [decoded.reason] if decoded.reason else decoded.notes
        (self.dropped if decoded.reason else self.mended).update(reasons)
        self.ledger += [(row.key, reason) for reason in reasons]
        if not decoded.reason:
            self.waiting[row.bin].append((row, decoded.pixels_HxWx3))
            if len(self.waiting[row.bin]) == BATCH:
                self._encode(row.bin)

    def _encode(self, bin: int):
        """Writes a bin's waiting pictures. The last batch is padded, so one program serves all."""
        waiting, self.waiting[bin] = self.waiting[bin], []
        if not waiting:
            return
        images = [pixels for _, pixels in waiting]
        images += images[-1:] * (BATCH - len(images))
        latents = np.asarray(self.codec.encode(np.stack(images)))
        for (row, _), latent_HxWxC in zip(waiting, latents):
            if not np.isfinite(latent_HxWxC).all():
                self.dropped[NOT_FINITE] += 1
                self.ledger.append((row.key, NOT_FINITE))
                continue
            self.latents.add(latent_HxWxC)
            self.writers[bin].write(records.pack_image(row.record(latent_HxWxC)))
            self.counts[bin] += 1


def finish(data: DataConfig, plan: Plan, codec: Codec | None = None) -> list[str]:
    """Writes dataset.json and ledger.jsonl if every piece is complete, else returns what is not.

    codec: made the latents; None is the config's.
    Raises InputError if no picture could be decoded.
    """
    missing = [i for i in range(plan.pieces) if not is_whole(plan, i)]
    if missing:
        told = ", ".join(map(str, missing))
        return [f"pieces {told} of {plan.pieces} of the pictures are missing"]
    done = plan.folder / "dataset.json"
    if done.exists() and files.read_json(done, "data set", remedy=dataset.REMEDY):
        return []
    paths = [dataset.image_marker(plan.folder, i, plan.pieces) for i in range(plan.pieces)]
    markers = [read_marker(path) for path in paths]
    _write_ledger(plan.folder, markers)
    info = _summary(data, plan, markers, codec or make_codec(data.codec))
    if not info["count"]:
        why = ", ".join(f"{reason} dropped {count}" for reason, count in info["dropped"].items())
        raise errors.InputError(f"no picture is left: {why}")
    files.write_json(plan.folder / "dataset.json", info)
    print(_table(info))
    return []


def _summary(data: DataConfig, plan: Plan, markers: list[dict], codec: Codec) -> dict:
    """Returns the content of dataset.json."""
    latents = Moments(codec.channels)
    dropped, mended = collections.Counter(plan.info["dropped"]), collections.Counter()
    for marker in markers:
        latents.merge(marker["latents"])
        dropped.update(marker["dropped"])
        mended.update(marker["mended"])
    counts = [list(column) for column in zip(*(marker["counts"] for marker in markers))]
    bins = [{"size": list(s), "counts": c} for s, c in zip(plan.bins, counts) if any(c)]
    about = (
        "captions",
        "captions_dropped",
        "languages",
        "enlarged",
        "rules",
        "rules_hash",
        "preview",
    )
    return {
        "format": dataset.FORMAT,
        "count": sum(map(sum, counts)),
        "rows": plan.info["rows"],
        "bins": bins,
        "dropped": dict(dropped.most_common()),
        "mended": dict(mended.most_common()),
        "codec": data.codec,
        "codec_identity": codec.identity(),
        "downsample": codec.downsample,
        "latent_mean": latents.mean_C.tolist(),
        "latent_std": np.maximum(latents.std_C, STD_LEAST).tolist(),
    } | {name: plan.info[name] for name in about}


def _write_ledger(folder: pathlib.Path, markers: list[dict]):
    """Joins the plan's drops and what each piece dropped or mended."""
    with files.atomic(folder / "ledger.jsonl") as path, open(path, "w", encoding="utf-8") as ledger:
        with open(ledger_path(folder), encoding="utf-8") as of_plan:
            shutil.copyfileobj(of_plan, ledger)
        for marker in markers:
            for key, reason in marker["ledger"]:
                ledger.write(json.dumps({"key": key, "reason": reason}, ensure_ascii=False) + "\n")


def _table(info: dict) -> str:
    """Returns the table to print: what became of the rows, a line per reason."""
    lines = [("kept", info["count"])] + [(f"dropped: {r}", n) for r, n in info["dropped"].items()]
    lines += [(f"mended: {r}", n) for r, n in info["mended"].items()]
    lines += [(f"caption dropped: {r}", n) for r, n in info["captions_dropped"].items()]
    lines += [("scaled up to their bin", info["enlarged"])] if info["enlarged"] else []
    lines += [("captions, each once", info["captions"])]
    lines += [(f"bin {b['size'][0]} x {b['size'][1]}", sum(b["counts"])) for b in info["bins"]]
    width = max(len(name) for name, _ in lines)
    return "\n".join(f"  {name:<{width}}  {n:>12,}" for name, n in lines)
