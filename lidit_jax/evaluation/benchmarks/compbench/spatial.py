"""Are two objects there, in the prompt's relation? (T2I-CompBench, arXiv 2307.06350)

The rules are those of the published code for two dimensions; the detector differs, see
`detections`.
"""

from collections.abc import Sequence

from lidit_jax.evaluation.benchmarks.compbench.chunks import Parse
from lidit_jax.evaluation.benchmarks.compbench.detections import Box, Found, iou, label

NEAR = ("on side of", "next to", "near")
# x and y of the second object's centre, relative to the first; y points down.
SIDES = {
    "on the left of": (1, 0),
    "on the right of": (-1, 0),
    "on the bottom of": (0, -1),
    "on the top of": (0, 1),
}
ON_TOP = "on top of"  # in complex prompts; the published code finds it, but has no rule for it
LOCALITIES = (*NEAR, *SIDES, ON_TOP)
# Pixels between things that are near each other, at the size of UniDet's input: the shorter side is
# resized to SHORT, or to less if the longer side would exceed LONG.
DISTANCE, SHORT, LONG = 150, 479, 480
# In a complex prompt, the objects are before and after these.
BETWEEN = (
    "on top of",
    "on bottom of",
    "on the left",
    "on the right",
    "next to",
    "on side of",
    "near",
)
MOST_IOU = 0.1  # of things beside each other
LEAST = 0.5  # lower scores of a picture become 0


def locality(prompt: str) -> str | None:
    """Returns the first phrase of LOCALITIES that is in a prompt, or None."""
    return next((phrase for phrase in LOCALITIES if phrase in prompt), None)


def objects(parsed: Parse, in_complex: bool) -> list[str] | None:
    """Returns the two objects, as labels to detect; None if there are not two.

    They are the prompt's first and last noun; for a complex prompt, which has other things too, the
    nouns around the phrase of BETWEEN. As published, None if it has two such phrases with nouns.
    """
    pair = parsed.nouns_around(BETWEEN) if in_complex else parsed.first_and_last_noun()
    return pair and [label(noun) for noun in pair]


def score(
    phrase: str,
    pair: Sequence[str] | None,
    found: Sequence[Found],
    size: Sequence[int],
    mode: str,
) -> float:
    """Returns a picture's score in [0, 1]: a quarter of each object's score, and half of `holds`.

    pair: the objects; the first detection of each counts. size: height and width of the picture.
    A total below 0.5 becomes 0; that includes a single object, a quarter of its score.
    mode: "fixed" reads "on top of" as "on the top of".
    """
    first = {}
    for one in found:
        first.setdefault(one[0], one)
    if pair is None or not first.keys() >= set(pair):
        return 0.0
    (_, score1, box1), (_, score2, box2) = (first[name] for name in pair)
    if mode == "fixed" and phrase == ON_TOP:
        phrase = "on the top of"
    distance = DISTANCE / min(SHORT / min(size), LONG / max(size))
    total = 0.25 * score1 + 0.25 * score2 + 0.5 * holds(phrase, box1, box2, distance)
    return total if total >= LEAST else 0.0


def holds(phrase: str, box1: Box, box2: Box, distance: float) -> float:
    """Returns how well a relation holds, in [0, 1]; 0 for "on top of", which has no rule.

    Near: 1 if the centres are less than `distance` pixels apart on either axis, else `distance`
    over the larger offset. Sides: 0 if the centres are not in this direction, else 1, or, if the
    boxes overlap more than MOST_IOU, MOST_IOU over their intersection over union.
    """
    dx, dy = ((box2[k] + box2[k + 2] - box1[k] - box1[k + 2]) / 2 for k in (0, 1))
    if phrase in NEAR:
        near = abs(dx) < distance or abs(dy) < distance
        return 1.0 if near else distance / max(abs(dx), abs(dy))
    x, y = SIDES.get(phrase, (0, 0))
    along, across = x * dx + y * dy, abs(y * dx) + abs(x * dy)
    if along <= across:
        return 0.0
    overlap = iou(box1, box2)
    return 1.0 if overlap < MOST_IOU else MOST_IOU / overlap
