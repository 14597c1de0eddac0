"""Checks whether the data that a run is evaluated on has pictures that it is trained on."""

import pathlib
from collections.abc import Iterator

import numpy as np

from lidit_jax.data.dataset import Captions, read_recipe
from lidit_jax.data.judging import HELD_OUT, TRAIN
from lidit_jax.data.plan import Plan


def share_pictures(one: dict, other: dict) -> bool:
    """Returns whether two data sets share pictures, as far as their recipes show.

    Recipes show it for one unchanged source; after a file was added or moved, it counts as another.
    """
    return one.get("described") == other.get("described") and not _are_apart(one, other)


def _are_apart(one: dict, other: dict) -> bool:
    """Returns whether two recipes are for parts without a common key, whatever the source."""
    held_out = {r["part"]: r["hold_out"] for r in (one, other)}
    return len(held_out) == 2 and held_out[HELD_OUT] <= held_out[TRAIN]


def count_alike(trained_on: pathlib.Path, judged: pathlib.Path) -> int:
    """Returns how many pictures of one data set share key, size and a caption with one of another.

    trained_on, judged: their folders. 0, without reading a plan, if the recipes have different
    kinds of source or parts without a common key; also 0 if a plan is missing.

    Pictures from two places may match by chance, if keys are numbers and captions class names.
    """
    recipes = [read_recipe(folder) for folder in (trained_on, judged)]
    kinds = [(r.get("source"), r.get("options")) for r in recipes]
    plans = [folder / "plan.json" for folder in (trained_on, judged)]
    if kinds[0] != kinds[1] or _are_apart(*recipes) or not all(p.exists() for p in plans):
        return 0
    ours, theirs = Plan(trained_on), Plan(judged)
    texts, their_texts = (Captions(p.folder, p.info["captions"]) for p in (ours, theirs))
    known = {key: (size, captions) for key, size, captions in _kept(theirs)}
    found = 0
    for key, size, captions in _kept(ours, np.fromiter(known, np.uint64, len(known))):
        other_size, others = known[key]
        if size == other_size:
            said = {their_texts[c].text for c in others}
            found += any(texts[c].text in said for c in captions)
    return found


def _kept(
    plan: Plan, among_K: np.ndarray | None = None
) -> Iterator[tuple[int, list[int], tuple[int, ...]]]:
    """Yields the key's hash, the size and the caption ids of every row that a plan keeps.

    among_K: only rows with these hashes.
    """
    for i in range(plan.pieces):
        rows = plan.piece(i)
        wanted_N = rows.bin_N >= 0
        if among_K is not None:
            wanted_N &= np.isin(rows.key_N, among_K)
        for row in np.flatnonzero(wanted_N):
            original, synthetic = rows.captions(row)
            yield int(rows.key_N[row]), rows.size_Nx2[row].tolist(), original + synthetic
