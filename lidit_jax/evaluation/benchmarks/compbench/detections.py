"""Detections of a prompt's objects, as in records.

T2I-CompBench (arXiv 2307.06350, section 4) uses UniDet, whose classes are fixed. Here an
open-vocabulary detector gets the prompt's nouns instead, so scores differ from those with UniDet:
call them spatial-OV and numeracy-OV, and do not compare them with published ones.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from lidit_jax.evaluation.benchmarks.compbench.words import PEOPLE
from lidit_jax.evaluation.judges.records import Detector

THRESHOLD = 0.3  # what a detection's score must exceed; ours, since UniDet's scale differs
# Of two detections of a label with a larger intersection over union, the worse is dropped. UniDet
# does this as its last step; detectors with queries, or with one box per patch, do not.
OVERLAP = 0.5

Box = Sequence[float]  # x1, y1, x2, y2
Found = Sequence[Any]  # label, score, box: a detection as JSON values


def label(noun: str) -> str:
    """Returns the label to detect for a noun: "person" for a girl, boy, man or woman."""
    return "person" if noun in PEOPLE else noun


def detect(detector: Detector, image: np.ndarray, labels: Sequence[str]) -> list[Found]:
    """Returns [label, score, box] of detections above the threshold and not suppressed, best first.

    image: uint8 [height, width, 3]; boxes are in its pixels. Without labels, nothing is returned.
    """
    names, kept = list(dict.fromkeys(labels)), []
    for d in detector.detect(image, names) if names else []:
        better = (box for name, _, box in kept if name == d.label)
        if d.score > THRESHOLD and not any(iou(d.box, box) > OVERLAP for box in better):
            kept.append([d.label, d.score, list(d.box)])
    return kept


def iou(box: Box, other: Box) -> float:
    """Returns the intersection of two boxes over their union, in [0, 1]."""
    shared, areas = _shared_and_areas(box, other)
    return shared / (sum(areas) - shared) if shared else 0.0


def share_of_smaller(box: Box, other: Box) -> float:
    """Returns the intersection of two boxes over the smaller box, in [0, 1]; at least `iou`."""
    shared, areas = _shared_and_areas(box, other)
    return shared / min(areas) if shared else 0.0


def _shared_and_areas(box: Box, other: Box) -> tuple[float, list[float]]:
    sides = [max(0.0, min(box[k + 2], other[k + 2]) - max(box[k], other[k])) for k in (0, 1)]
    return sides[0] * sides[1], [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
