"""Mask2Former: detects objects of fixed classes, each with its mask. The detector of GenEval."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.errors import unknown_name
from lidit_jax.evaluation.judges import loading
from lidit_jax.evaluation.judges.records import Detection

MOST = 100  # (query, class) pairs that are kept per picture
# Sides of the model's input in pixels, rounded up to multiples of 32: mmdetection's and Meta's
# values. The folders published for transformers say 384 x 384 for pictures of any shape.
SIDES = {"shortest_edge": 800, "longest_edge": 1333}

# Names of the same class: COCO's, GenEval's if different, and those in the published models'
# configs.
SYNONYMS = (
    ("motorcycle", "motorbike"),
    ("airplane", "aeroplane"),
    ("couch", "sofa"),
    ("potted plant", "pottedplant"),
    ("dining table", "diningtable"),
    ("tv", "tv monitor", "tvmonitor"),
    ("mouse", "computer mouse"),
    ("remote", "tv remote"),
    ("keyboard", "computer keyboard"),
    ("hair drier", "hair dryer"),
)


class Mask2Former:
    """A detector whose boxes come from masks (Mask2Former, arXiv 2112.01527).

    Scores, boxes and input size follow mmdetection's Mask2Former, which GenEval (arXiv 2310.11513)
    uses; transformers' own processing resizes to 384 x 384, and rounds scores. The published
    weights in transformers' format are Meta's, not mmdetection's, so numbers differ from GenEval's
    own. They also differ for pictures that are not square: their sides are stretched to multiples
    of 32 here, but padded in mmdetection.
    """

    def __init__(self, folder: Path):
        self._images = loading.image_processor(folder)
        self._model = loading.model(folder)
        self.identity = loading.identity(folder)

    def detect(self, image: np.ndarray, labels: Sequence[str]) -> list[Detection]:
        """Returns detections of these classes with masks, best first, regardless of their score.

        image: uint8 [height, width, 3]. labels: names in the model's config or synonyms of them, in
          any case; detections have the labels as given.
        Raises InputError for a label that is not a class of the model.
        """
        names = self._model.config.id2label
        classes = {label: class_of(label, names) for label in labels}
        given = loading.pixels(self._images, image, device=self._model.device, size=SIDES)
        seen = self._model(**given)
        classes_QxK = seen.class_queries_logits[0].softmax(dim=-1)[:, :-1]  # the last: no object
        return detections(classes_QxK, seen.masks_queries_logits[0], image.shape[:2], classes)


def class_of(label: str, id2label: dict[int, str]) -> int:
    """Returns the class whose name, or a synonym of it, is the label, in any case.

    id2label: class -> name, from a model's config. Raises InputError if there is none.
    """
    known = {name.lower(): k for k, name in id2label.items()}
    same = next((names for names in SYNONYMS if label.lower() in names), (label.lower(),))
    for name in same:
        if name in known:
            return known[name]
    raise unknown_name("class of the detector", label, known)


def detections(
    classes_QxK, masks_Qxhxw, size: tuple[int, int], classes: dict[str, int]
) -> list[Detection]:
    """Returns the detections of some classes, best first, by mmdetection's rule for instances.

    The MOST best (query, class) pairs are kept. A mask is where its logit is positive; the score is
    the class's probability times the mean probability inside the mask. Empty masks are dropped.

    Args:
      classes_QxK: class probabilities of each query, without "no object"; a tensor.
      masks_Qxhxw: logits for the whole picture, at any resolution; a tensor.
      size: height and width of the picture; masks are resized to it.
      classes: label -> column of classes_QxK.
    """
    queries, columns = classes_QxK.shape
    best = classes_QxK.flatten().topk(min(MOST, queries * columns)).indices.tolist()
    kept = {divmod(pair, columns) for pair in best}
    found = []
    for label, column in classes.items():
        for query in range(queries):
            if (query, column) in kept:
                probability = float(classes_QxK[query, column])
                found += _detection(label, probability, masks_Qxhxw[query], size)
    return sorted(found, key=lambda detection: -detection.score)


def _detection(label: str, probability: float, mask_hxw, size: tuple[int, int]) -> list[Detection]:
    """Returns one detection, or none if the mask is empty."""
    from torch.nn.functional import interpolate

    mask_HxW = interpolate(mask_hxw[None, None], size=size, mode="bilinear", align_corners=False)
    mask_HxW = mask_HxW[0, 0]
    inside_HxW = mask_HxW > 0
    if not inside_HxW.any():
        return []
    score = probability * float(mask_HxW[inside_HxW].sigmoid().mean())
    inside_HxW = inside_HxW.cpu().numpy()
    return [Detection(label, score, bounds(inside_HxW), inside_HxW)]


def bounds(mask_HxW: np.ndarray) -> tuple[float, float, float, float]:
    """Returns the tight box (x1, y1, x2, y2) of a non-empty mask, x2 and y2 exclusive."""
    rows, columns = np.flatnonzero(mask_HxW.any(axis=1)), np.flatnonzero(mask_HxW.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
