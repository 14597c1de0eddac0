"""Describes what a run's folder holds, for people. Reads no arrays and writes nothing.

The run may be training: files that vanish meanwhile are ignored.
"""

import contextlib
import datetime
import math
import os
import pathlib
from collections.abc import Iterator

from lidit_jax import files
from lidit_jax.training.checkpoints import damage, naming, reading, record, resuming
from lidit_jax.training.checkpoints.claim import RESTORE
from lidit_jax.training.telemetry import ledger, step_lines


def info(workdir: pathlib.Path) -> Iterator[str]:
    """Yields lines on a run's folder: config, checkpoints, damaged and unfinished ones, and ledger.

    Of a checkpoint, reads the metadata of its arrays and checks its record against its hash.
    Raises InputError if the folder is not a run.
    """
    path, what = workdir / "config.json", "run's config (is this a run?)"
    config = files.read_json(path, what, remedy=RESTORE, holds=("task", "train"))
    folder = (workdir / "checkpoints").absolute()
    steps = damage.steps_in(folder)
    yield (
        f"{workdir}: task {config['task']}, {_parameters(folder, steps)}, "
        f"{_progress(config, steps)}"
    )
    for step in steps:
        yield from _checkpoint(folder / str(step))
    if not steps:
        yield "no finished checkpoint"
    for path, size in _others(folder):
        yield (
            f"unfinished: {path}, {size:,} bytes: it is being saved, or a kill left it, and the "
            f"next start removes it"
        )
    aside = workdir / resuming.ASIDE
    for path in sorted(aside.iterdir()) if aside.is_dir() else ():
        yield f"damaged, moved aside: {path}, {_size(path):,} bytes"
    yield from _ledger(workdir)


def _parameters(folder: pathlib.Path, steps: list[int]) -> str:
    for step in reversed(steps):
        try:
            found = naming.by_name(reading.metadata(folder / str(step), "ema")).values()
        except damage.Damaged:  # reported with the checkpoint
            continue
        return f"{sum(math.prod(a.shape) for a in found):,} parameters"
    return "parameters unknown"


def _progress(config: dict, steps: list[int]) -> str:
    return f"step {max(steps, default=0)} of {config.get('train', {}).get('steps', 'unknown')}"


def _checkpoint(folder: pathlib.Path) -> Iterator[str]:
    try:
        told = record.read(folder)
        items = [_item(folder, item, len(names)) for item, names in told["digests"].items()]
    except damage.Damaged as e:
        size = _size(folder)
        if folder.is_dir():  # else it was being removed
            yield f"step {folder.name}: {size:,} bytes, DAMAGED: {e.why}"
        return
    saved = datetime.datetime.fromtimestamp(told["saved"]).astimezone()
    yield (
        f"step {folder.name}: saved {saved:%Y-%m-%d %H:%M:%S %z}, {_size(folder):,} bytes, "
        "files readable"
    )
    yield f"  arrays: {', '.join(items)}"
    if told["means"]:
        means = sorted(told["means"].items())
        yield f"  means: {', '.join(f'{name} {value:.4g}' for name, value in means)}"


def _item(folder: pathlib.Path, item: str, count: int) -> str:
    """Describes an item. Raises Damaged unless its metadata lists as many arrays as were saved."""
    found = naming.by_name(reading.metadata(folder, item))
    if len(found) != count:
        raise damage.Damaged(folder, f"its {item} lists {len(found)} arrays of {count}")
    kinds = " ".join(sorted({str(a.dtype) for a in found.values()}))
    return f"{item} {count} of {kinds}"


def _others(folder: pathlib.Path) -> Iterator[tuple[pathlib.Path, int]]:
    """Yields unfinished checkpoints (being saved, or left by a kill) with their bytes."""
    if not folder.is_dir():
        return
    for path in sorted(filter(resuming.is_unfinished, folder.iterdir())):
        size = _size(path)
        if path.is_dir():
            yield path, size


def _size(folder: pathlib.Path) -> int:
    """Returns the bytes of all files still in a folder."""
    total = 0
    for inside, _, names in os.walk(folder):  # it also ignores what vanishes
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.stat(os.path.join(inside, name)).st_size
    return total


def _ledger(workdir: pathlib.Path) -> Iterator[str]:
    path = workdir / ledger.NAME
    rows = step_lines.read(path)
    counts = {}
    for row in rows:
        what = row.get("what", "unknown")
        counts[what] = counts.get(what, 0) + 1
    if counts:
        yield f"{path}: {', '.join(f'{n} {what}' for what, n in sorted(counts.items()))}"
