"""The verdict on one example: does it stay, with which captions, in which bin, or why not?"""

import dataclasses
from typing import Any

from lidit_jax.data import buckets, filters
from lidit_jax.data.plan import key_hash
from lidit_jax.data.sources.example import Caption, Example
from lidit_jax.data.sources.images import ImageError

MOST_CAPTIONS = 255  # of one picture
# The parts that `Recipe.hold_out` divides a source into; and the reasons of an example that no rule
# drops, but that is of the other part.
PARTS = TRAIN, HELD_OUT = "train", "held_out"
REASONS = {TRAIN: "trained-on", HELD_OUT: "held-out"}


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a source is planned.

    bins: the sizes that pictures are trained at. side: the stage's side, in pixels.
    rules: ids in judging order. pieces: how many files the rows go to.
    least: a bin of which fewer pictures are trained on goes to the nearest other bin.
    limit: keep this many pictures, chosen by a hash of url or key, in any order the same; 0 = all.
    hold_out: the share of the keys, chosen by hash, that is left out to judge a model by.
    part: which one is planned: what is trained on, or what is left out.
    preview: captions to look at while training.
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
        """What `least` is for this part, so that both parts have much the same bins: of what is held out,
        as many fewer as there are fewer pictures."""
        if self.part == TRAIN:
            return self.least
        return max(1, round(self.least * self.hold_out / (1 - self.hold_out)))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What is said of one example: `reason` is None where it stays, and `bin` -1 where it does not.

    captions: those that stay. captions_dropped: for each of the others, the rule.
    """

    reason: str | None
    size: buckets.Size = (0, 0)
    bin: int = -1
    captions: tuple[Caption, ...] = ()
    captions_dropped: tuple[str, ...] = ()


def judge(example: Example, recipe: Recipe) -> Verdict:
    """Returns the verdict on an example: each caption with its picture is one pair for the rules.

    A pair that fails takes its caption away; the picture goes with its last caption, for the reason
    of its first.
    """
    held_out = key_hash(f"hold out {example.key}") < recipe.hold_out * 2**64
    part = HELD_OUT if held_out else TRAIN
    if part == TRAIN and recipe.part == HELD_OUT:  # as nearly every row is, and none is looked at
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
