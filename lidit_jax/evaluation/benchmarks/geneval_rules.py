"""GenEval's rules: is a picture with these objects right? Pure.

GenEval, arXiv 2310.11513, section 3, as in the published code. An object is
{"score": ..., "box": [x1, y1, x2, y2]}, and {"colour": ...} if a clause asks for it; the objects of
a class are sorted, best first. A clause is {"class": ..., "count": ...}; an include clause may have
a "color", and a "position", [relation, index of an earlier clause].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from lidit_jax.evaluation.judges.records import Detection

THRESHOLD = 0.3  # what a detection's score must exceed
COUNTING_THRESHOLD = 0.9  # for counting prompts
MOST_OBJECTS = 16  # of a class
MARGIN = 0.1  # share of the two objects' summed sizes that an offset must exceed
STEEPEST = 0.5  # a relation holds if its axis has more than this share of the distance

Clause = Mapping[str, Any]
Object = Mapping[str, Any]


def kept(detections: Sequence[Detection], counting: bool) -> dict[str, list[Detection]]:
    """Returns the detections that count, for each class, best first.

    Detections of a class may overlap: the published code has suppression off.
    """
    least = COUNTING_THRESHOLD if counting else THRESHOLD
    found: dict[str, list[Detection]] = {}
    for detection in sorted(detections, key=lambda d: -d.score):
        if detection.score > least:
            found.setdefault(detection.label, []).append(detection)
    return {label: of_class[:MOST_OBJECTS] for label, of_class in found.items()}


def is_right(
    objects: Mapping[str, Sequence[Object]], include: Sequence[Clause], exclude: Sequence[Clause]
) -> bool:
    """Returns whether all include clauses hold, and no exclude clause does.

    An include clause takes the `count` best objects of its class. All of them must have its colour,
    and its relation to all objects taken by the clause that it refers to. An exclude clause holds
    for `count` objects or more; so including n and excluding n + 1 requires exactly n.
    """
    groups = [objects.get(clause["class"], [])[: clause["count"]] for clause in include]
    included = all(_holds(c, group, groups) for c, group in zip(include, groups, strict=True))
    return included and all(len(objects.get(c["class"], [])) < c["count"] for c in exclude)


def _holds(clause: Clause, group: Sequence[Object], groups: Sequence[Sequence[Object]]) -> bool:
    """Whether a clause holds for the objects that it took; `groups`: what each clause took."""
    if len(group) < clause["count"]:
        return False
    if "color" in clause and any(o["colour"] != clause["color"] for o in group):
        return False
    if "position" not in clause:
        return True
    relation, index = clause["position"]
    return all(
        relation in relations(o["box"], other["box"]) for o in group for other in groups[index]
    )


def relations(box: Sequence[float], other: Sequence[float]) -> set[str]:
    """Returns the relations of a box to another: "left of", "right of", "above", "below".

    The offset of the centres is shortened on each axis by MARGIN times the summed sizes, and
    divided by its original length; a relation holds if more than STEEPEST is left of it. Two can
    hold at once, or none. y points down.
    """
    corners_2x2x2 = np.reshape([box, other], (2, 2, 2)).astype(float)
    centre_2x2, size_2x2 = corners_2x2x2.mean(axis=1), np.ptp(corners_2x2x2, axis=1)
    offset_2 = centre_2x2[0] - centre_2x2[1]
    left_2 = np.maximum(np.abs(offset_2) - MARGIN * size_2x2.sum(axis=0), 0) * np.sign(offset_2)
    if (np.abs(left_2) < 1e-3).all():
        return set()
    x, y = left_2 / np.linalg.norm(offset_2)
    holds = {"left of": -x, "right of": x, "above": -y, "below": y}
    return {name for name, share in holds.items() if share > STEEPEST}
