"""The verdict on one example: whether it stays, with which captions and bin, or why not."""

import dataclasses
from typing import Any

from lidit_jax.data import buckets, filters
from lidit_jax.data.plan import key_hash
from lidit_jax.data.sources.example import Caption, Example
from lidit_jax.data.sources.images import ImageError

MOST_CAPTIONS = 255  # of one picture
# The parts into which `Recipe.hold_out` divides a source; and the reasons for an example that no
# rule drops, but that belongs to the other part.
PARTS = TRAIN, HELD_OUT = "train", "held_out"
REASONS = {TRAIN: "trained-on", HELD_OUT: "held-out"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a source is planned.

    bins: the training sizes. side: the stage's side, in pixels.
    rules: ids in judging order. pieces: the number of files for the rows.
    least: pictures of a bin with fewer training pictures than this go to the nearest other bin.
    limit: keep this many pictures, chosen by a hash of url or key, in any order the same; 0 = all.
    hold_out: the fraction of the keys, chosen by hash, that is held out for evaluation.
    part: the part to plan: the training part or the held-out part.
    preview: captions to preview during training.
    """

    bins: buckets.Bins
    side: int
    rules: tuple[str, ...]
    pieces: int
    least: int = 1
    limit: int = 0
    hold_out: float = 0.0
    part: str = TRAIN
    preview: tuple[str, ...] = ()

    @property
    def least_of_part(self) -> int:
        """`least` for this part, so that both parts have much the same bins: for the held-out part,
        it is scaled by the ratio of the parts' sizes."""
        if self.part == TRAIN:
            return self.least
        return max(1, round(self.least * self.hold_out / (1 - self.hold_out)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The verdict on one example: `reason` is None if it stays, and `bin` is -1 if it does not.

    captions: those that stay. captions_dropped: the rule for each of the others.
    """

    reason: str | None
    size: buckets.Size = (0, 0)
    bin: int = -1
    captions: tuple[Caption, ...] = ()
    captions_dropped: tuple[str, ...] = ()


def judge(example: Example, recipe: Recipe) -> Verdict:
    """Returns the verdict on an example; the rules judge each caption with the picture as one pair.

    A pair that fails drops its caption. A picture without captions left is dropped, for the reason
    of its first caption.
    """
    held_out = key_hash(f"hold out {example.key}") < recipe.hold_out * 2**64
    part = HELD_OUT if held_out else TRAIN
    if part == TRAIN and recipe.part == HELD_OUT:  # true of nearly every row, and none is looked at
        return Verdict(REASONS[part])
    captions = [c for c in map(_stripped, example.captions) if c.text]
    if not captions:
        return Verdict("caption-empty")
    try:
        size = _known_size(example.metadata) or example.picture.size()
    except ImageError as e:
        return Verdict(e.reason)
    bin = recipe.bins.assign(size)
    of_picture = (size, recipe.bins.sizes[bin], recipe.side, example.metadata)
    rules = recipe.rules
    reasons = [filters.first_failing(filters.Pair(c.text, *of_picture), rules) for c in captions]
    reasons[MOST_CAPTIONS:] = ["caption-limit"] * (len(reasons) - MOST_CAPTIONS)
    failed = tuple(r for r in reasons if r)
    if len(failed) == len(captions):
        return Verdict(failed[0], size)
    kept = tuple(c for c, reason in zip(captions, reasons) if not reason)
    if part != recipe.part:
        return Verdict(REASONS[part], size, captions=kept)
    return Verdict(None, size, bin, kept, failed)


def _stripped(caption: Caption) -> Caption:
    text = caption.text.strip()
    return caption if text == caption.text else dataclasses.replace(caption, text=text)


def _known_size(metadata: dict[str, Any]) -> buckets.Size | None:
    height, width = metadata.get("height"), metadata.get("width")
    known = isinstance(height, int) and isinstance(width, int) and height > 0 and width > 0
    return (height, width) if known else None
