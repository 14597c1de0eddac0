"""Are these the pictures of these prompts? A benchmark is scored whole, or not at all."""

import collections
from collections.abc import Sequence

from lidit_jax import files
from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks.benchmark import Item
from lidit_jax.evaluation.pictures import Picture, listed


def check(items: Sequence[Item], pictures: Sequence[Picture]) -> int:
    """Returns how many pictures there are of each item, if they are what a benchmark wants.

    Of each item there are equally many, at least one, one after the other; the items are in their order;
    every picture is a PNG of its own, and all are of one size.
    Raises InputError that lists what is missing, unknown, of another number, in another place, or of
    another size.
    """
    per_prompt = _check_numbers(items, pictures)
    _check_order(items, pictures, per_prompt)
    _check_files(pictures)
    return per_prompt


def _check_numbers(items: Sequence[Item], pictures: Sequence[Picture]) -> int:
    wanted = collections.Counter(item.text for item in items)
    found = collections.Counter(picture.prompt for picture in pictures)
    _refuse([repr(t) for t in found if t not in wanted], "prompts that are not of the benchmark")
    _refuse([repr(t) for t in wanted if t not in found], "prompts without a picture")
    each = {text: found[text] // count for text, count in wanted.items()}
    usual, _ = collections.Counter(each.values()).most_common(1)[0]
    others = [f"{t!r} ({found[t]})" for t in wanted if found[t] != usual * wanted[t]]
    _refuse(others, f"prompts that have not {usual} pictures, as most have")
    return usual


def _check_order(items: Sequence[Item], pictures: Sequence[Picture], per_prompt: int):
    misplaced = [
        f"{picture.path.name} of {picture.prompt!r}"
        for k, picture in enumerate(pictures)
        if picture.prompt != items[k // per_prompt].text
    ]
    _refuse(misplaced, "pictures that are not in the order of the prompts")


def _check_files(pictures: Sequence[Picture]):
    """Looks at each file's ends only: what is between shows when it is judged."""
    times = collections.Counter(picture.path for picture in pictures)
    _refuse(
        [path.name for path in times if times[path] > 1], "files that are listed more than once"
    )
    height, width = pictures[0].load().shape[:2]
    others = [p.path.name for p in pictures if not files.is_whole_png(p.path, (height, width))]
    first = pictures[0].path.name
    _refuse(others, f"files that are no whole PNG of {width}x{height} pixels, the size of {first}")


def _refuse(wrong: Sequence[str], what: str):
    """Raises InputError if anything is wrong."""
    if wrong:
        raise InputError(
            f"{what} ({len(wrong)}): {listed(wrong)}; want the pictures that lidit_jax.sample draws of the file "
            "that --write_prompts writes"
        )
