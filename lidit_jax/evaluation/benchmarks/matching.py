"""Do these pictures belong to these prompts? A benchmark is scored completely, or not at all."""

import collections
from collections.abc import Sequence

from PIL import Image

from lidit_jax import files
from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.pictures import Picture, listed

# The remedy in messages of `_refuse`.
_TEXTS = "the manifest's prompts must be exactly those that --write_prompts writes"
_ORDER = f"{_TEXTS}, in the same order"


def check(items: Sequence[Item], pictures: Sequence[Picture]) -> int:
    """Returns the number of pictures per item, if the pictures meet a benchmark's requirements.

    Every item has the same number of pictures, at least one, next to each other; the items are in
    order; every picture is a PNG file of its own, and all have the same size.
    Raises InputError that lists what is missing or unknown, or has another number, place or size.
    """
    per_prompt = _check_numbers(items, pictures)
    _check_order(items, pictures, per_prompt)
    _check_files(pictures)
    return per_prompt


def _check_numbers(items: Sequence[Item], pictures: Sequence[Picture]) -> int:
    wanted = collections.Counter(item.text for item in items)
    found = collections.Counter(picture.prompt for picture in pictures)
    _refuse([repr(t) for t in found if t not in wanted], "prompts that are not in the benchmark")
    _refuse([repr(t) for t in wanted if t not in found], "prompts without a picture")
    each = {text: found[text] // count for text, count in wanted.items()}
    usual, _ = collections.Counter(each.values()).most_common(1)[0]
    others = [f"{t!r} ({found[t]})" for t in wanted if found[t] != usual * wanted[t]]
    _refuse(others, f"prompts that do not have {usual} pictures like most others")
    return usual


def _check_order(items: Sequence[Item], pictures: Sequence[Picture], per_prompt: int):
    misplaced = [
        f"{picture.name} of {picture.prompt!r}"
        for k, picture in enumerate(pictures)
        if picture.prompt != items[k // per_prompt].text
    ]
    _refuse(misplaced, "pictures that are not in the order of the prompts", _ORDER)


def _check_files(pictures: Sequence[Picture]):
    """Checks only the ends of each file: damage in between shows when it is judged."""
    paths = [picture.path.resolve() for picture in pictures]
    times = collections.Counter(paths)
    twice = dict.fromkeys(p.name for p, path in zip(pictures, paths) if times[path] > 1)
    _refuse(list(twice), "files that are listed more than once", "want one file per picture")
    pictures[0].load()
    with Image.open(pictures[0].path) as first:  # the stored size: `load` may rotate it
        width, height = first.size
    others = [p.name for p in pictures if not files.is_whole_png(p.path, (height, width))]
    size = f"{width}x{height} pixels, the size of {pictures[0].name}"
    _refuse(others, f"files that are not complete PNGs of {size}", "save them like this")


def _refuse(wrong: Sequence[str], what: str, remedy: str = _TEXTS):
    """Raises InputError if anything is wrong."""
    if wrong:
        raise InputError(f"{what} ({len(wrong)}): {listed(wrong)}; {remedy}")
