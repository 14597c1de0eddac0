"""Reads a whole data set, and reports every problem that it finds."""

import collections
import pathlib
from collections.abc import Iterator

import msgpack
import numpy as np
from tqdm import tqdm

from lidit_jax import errors, files
from lidit_jax.data import dataset, records
from lidit_jax.data.dataset import Captions
from lidit_jax.data.plan import Plan
from lidit_jax.moments import Moments
from lidit_jax.preparation import features, images
from lidit_jax.share import bounds
from lidit_jax.text import encode

TOLERANCE = 0.02  # of statistics recomputed from what is stored, relative to each channel's std


def verify(folder: pathlib.Path) -> list[str]:
    """Returns every problem of a data set and of its feature stores,
    one line each; none if it is sound.

    Raises InputError if the folder holds no planned data set.
    """
    plan = Plan(folder)
    problems = [
        *_told(_plan(plan), "the plan"),
        *_told(_captions(plan), "captions.array_record"),
        *_told(_images(plan), "dataset.json"),
    ]
    for store in sorted(p for p in (folder / "features").glob("*") if p.is_dir()):
        problems += _told(_features(plan, store), store.name)
    return problems


def _told(problems: Iterator[str], what: str) -> Iterator[str]:
    """Yields the problems of a part, and one more if the part cannot be read.

    Reraises the error of a network filesystem that does not answer: it is not about the part.
    """
    try:
        yield from problems
    except (errors.InputError, OSError, EOFError, RuntimeError, ValueError, LookupError) as e:
        if errors.is_unreachable(e):
            raise
        yield f"{what} cannot be read: {errors.in_one_line(e)}"


def _plan(plan: Plan) -> Iterator[str]:
    dataset.read_recipe(plan.folder)
    if not plan.is_whole():
        yield "a file of the plan is missing; run `prepare` again"
    for path in plan.changed():
        yield f"{path} differs from what was written; delete it and run `prepare` again"
    for i in range(plan.pieces):
        kept = int((plan.piece(i).bin_N >= 0).sum())
        if kept != sum(counts[i] for counts in plan.info["counts"]):
            yield f"piece {i} of the plan keeps {kept} rows, but plan.json has another number"


def _captions(plan: Plan) -> Iterator[str]:
    captions = Captions(plan.folder)
    if len(captions) != plan.info["captions"]:
        yield (
            f"captions.array_record has {len(captions)} captions, the plan {plan.info['captions']}"
        )
    for i in range(len(captions)):
        if not captions[i].text.strip():
            yield f"caption {i} is empty"


def _images(plan: Plan) -> Iterator[str]:
    """Yields the problems of the pieces, and of dataset.json."""
    found = _Found()
    for i in tqdm(range(plan.pieces), desc="pictures", unit="piece"):
        yield from _told(_piece(plan, i, found), f"piece {i} of the pictures")
    path = plan.folder / "dataset.json"
    if not path.exists():
        yield "dataset.json is missing; run `prepare` again"
    elif found.pieces == plan.pieces:  # else its counts and statistics include more
        info = files.read_json(path, "data set", remedy=dataset.REMEDY)
        counts = {tuple(b["size"]): sum(b["counts"]) for b in info["bins"]}
        if counts != found.counts or info["count"] != sum(found.counts.values()):
            yield f"dataset.json counts {counts}, but there are {dict(found.counts)}"
        told = info["latent_mean"], info["latent_std"]
        std_C = np.maximum(found.latents.std_C, images.STD_LEAST)
        yield from _statistics("dataset.json", told, (found.latents.mean_C, std_C))


class _Found:
    """What all the pieces together contain."""

    def __init__(self):
        self.pieces, self.keys, self.counts = 0, set(), collections.Counter()
        self.latents: Moments | None = None


def _piece(plan: Plan, i: int, found: _Found) -> Iterator[str]:
    if not images.is_whole(plan, i):
        yield f"piece {i} of the pictures is not complete; run `prepare` again"
        return
    marker = images.read_marker(dataset.image_marker(plan.folder, i, plan.pieces))
    sound = True
    for size, count, checksum in zip(plan.bins, marker["counts"], marker["sha256"]):
        path = dataset.image_path(plan.folder, size, i, plan.pieces)
        for record, problem in _records(path, count, checksum) if count else ():
            problem = problem or _problem_of(record, size, plan, found.keys)
            if problem:
                sound = False
                yield f"{path.relative_to(plan.folder)}: {problem}"
                continue
            latent_HxWxC = records.unpack_image(record).latent_HxWxC
            found.latents = found.latents or Moments(latent_HxWxC.shape[-1])
            found.latents.add(latent_HxWxC)
            found.counts[size] += 1
    found.pieces += sound


def _problem_of(record: bytes, size: tuple[int, int], plan: Plan, keys: set[str]) -> str | None:
    """Returns what is wrong with one picture, whose key it adds to `keys`."""
    try:
        image = records.unpack_image(record)
    except records.BadRecord as e:
        return f"{e.key or 'a record'} {e.why}"
    height, width = image.latent_HxWxC.shape[:2]
    if height * size[1] != width * size[0] or size[0] % height:
        return f"{image.key}: a latent of {height} x {width} in bin {size[0]}x{size[1]}"
    ids = image.captions + image.synthetic
    if not ids or not all(0 <= c < plan.info["captions"] for c in ids):
        return f"{image.key}: its caption ids are {ids}, but there are {plan.info['captions']}"
    if image.key in keys:
        return f"{image.key}: its key is not unique"
    keys.add(image.key)
    return None


def _features(plan: Plan, store: pathlib.Path) -> Iterator[str]:
    """Yields the problems of one encoder's features."""
    if not (store / "encoder.json").exists():
        yield f"{store.name}: encoder.json is missing; run `prepare` again"
        return
    info = files.read_json(store / "encoder.json", "text features", remedy=dataset.REMEDY)
    codec = dataset.feature_codec(store, info["codec"])
    moments, shards, whole = Moments(info["width"]), info["shards"], True
    for i in tqdm(range(shards), desc=store.name, unit="shard"):
        path = dataset.feature_path(store, i, shards)
        if not features.is_whole(store, plan, i):
            yield f"{store.name}: shard {i} is not complete; run `prepare` again"
            whole = False
            continue
        checksum = features.read_marker(path)["sha256"]
        rows = bounds(plan.info["captions"], i, shards)
        for row, (record, problem) in enumerate(_records(path, len(rows), checksum), rows.start):
            if problem:
                yield f"{path.relative_to(plan.folder)}: {problem}"
                whole = False
                continue
            hidden_SxE = codec.unpack(msgpack.unpackb(record)).astype(np.float32)
            if hidden_SxE.shape[1] != info["width"] or not 0 < len(hidden_SxE) <= info["longest"]:
                yield f"{store.name}: caption {row} has features of shape {hidden_SxE.shape}"
            elif not np.isfinite(hidden_SxE).all():
                yield f"{store.name}: the features of caption {row} are not finite"
            else:
                moments.add(hidden_SxE)
    if whole:
        found = moments.mean_C, encode.floored(moments.std_C)
        yield from _statistics(f"{store.name}/encoder.json", (info["mean"], info["std"]), found)
    for name in ("prefix.npy", "null.npy"):
        yield from _told(_array(store / name, info["width"]), f"{store.name}/{name}")


def _array(path: pathlib.Path, width: int) -> Iterator[str]:
    array = dataset.read_array(path)
    if array.shape[1:] != (width,) or not np.isfinite(array).all():
        yield f"{path.parent.name}/{path.name} has shape {array.shape}, or is not finite"


def _records(path: pathlib.Path, count: int, checksum: str) -> Iterator[tuple[bytes, str | None]]:
    """Yields every record of a file, or (b"", problem); stops reading a damaged file."""
    if files.checksum(path) != checksum:
        yield b"", "its checksum is not the one written with it; delete it and run `prepare` again"
        return
    rows = records.Shards([path])
    if len(rows) != count:
        yield b"", f"it has {len(rows)} records, but should have {count}"
    for i in range(len(rows)):
        yield rows[i], None


def _statistics(where: str, told, found) -> Iterator[str]:
    """Compares the recorded mean and std with those of what is stored, which was rounded."""
    told_2xC, found_2xC = np.asarray(told), np.asarray(found)
    mean_C, std_C = told_2xC
    step_C = 2.0**-8 * np.abs(mean_C)  # the largest error of a value in bf16
    # Many values that vary by more than that have no bias; they vary by a little more.
    rounding_2xC = [np.where(std_C < step_C, step_C, 0), np.hypot(std_C, step_C) - std_C]
    off = np.maximum(np.abs(told_2xC - found_2xC) - rounding_2xC, 0) / std_C
    if not off.max() <= TOLERANCE:
        yield (
            f"{where}: its statistics are not those of what is stored (off by {off.max():.3g} std)"
        )
