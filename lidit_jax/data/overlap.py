"""Has what a run is judged by pictures that it is trained on?"""

import pathlib
from collections.abc import Iterator

import numpy as np

from lidit_jax.data.dataset import Captions, read_recipe
from lidit_jax.data.judging import HELD_OUT, TRAIN
from lidit_jax.data.plan import Plan


def share_pictures(one: dict, other: dict) -> bool:
    """Returns whether two data sets have pictures in common, as far as their recipes tell.

    They tell it of one source as it is now; where a file was added since, or moved, they are of two.
    """
    return one.get("described") == other.get("described") and not _are_apart(one, other)


def _are_apart(one: dict, other: dict) -> bool:
    """Returns whether two recipes are of parts that have no key in common, of whatever source."""
    held_out = {r["part"]: r["hold_out"] for r in (one, other)}
    return len(held_out) == 2 and held_out[HELD_OUT] <= held_out[TRAIN]


def count_alike(trained_on: pathlib.Path, judged: pathlib.Path) -> int:
    """Returns how many pictures of one data set have key, size and a caption of some of another.

    trained_on, judged: their folders. 0, and no plan is read, where the recipes are of two kinds of source or of
    parts that have no key in common; 0, too, where a plan is gone.

    Pictures of two places may be so by chance, where keys are numbers and captions names of classes.
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
    """Yields the hash of its key, the size and the caption ids of every row that a plan keeps.

    among_K: only those with these hashes.
    """
    for i in range(plan.pieces):
        rows = plan.piece(i)
        wanted_N = rows.bin_N >= 0
        if among_K is not None:
            wanted_N &= np.isin(rows.key_N, among_K)
        for row in np.flatnonzero(wanted_N):
            original, synthetic = rows.captions(row)
            yield int(rows.key_N[row]), rows.size_Nx2[row].tolist(), original + synthetic
