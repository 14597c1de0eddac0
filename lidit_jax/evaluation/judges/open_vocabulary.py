"""Open-vocabulary detectors, prompted with words: OWLv2 and Grounding DINO. Boxes, no masks.

Their scores differ from those of a detector of fixed classes: thresholds do not carry over. Each
box gets only its best label, so detections also depend on which other labels are asked for.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lidit_jax.errors import InputError
from lidit_jax.evaluation.judges import loading
from lidit_jax.evaluation.judges.records import Detection


class Owlv2:
    """OWLv2 (arXiv 2306.09683). A query is the label itself."""

    def __init__(self, folder: Path):
        self._tokenizer, self._images = loading.tokenizer(folder), loading.image_processor(folder)
        self._model = loading.model(folder)
        self.identity = loading.identity(folder)

    def detect(self, image: np.ndarray, labels: Sequence[str]) -> list[Detection]:
        """Returns one detection per patch of the model's picture, best first.

        image: uint8 [height, width, 3]. labels: any words; truncated to the model's 16 tokens.
        A score is the sigmoid of the label's logit. Boxes are clipped to the picture; those
        entirely in the padding that makes it square are dropped.
        """
        labels = list(dict.fromkeys(labels))
        if not labels:
            return []
        longest = self._model.config.text_config.max_position_embeddings
        words = self._tokenizer(
            labels, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        ).to(self._model.device)
        pixels = loading.pixels(self._images, image, device=self._model.device)
        seen = self._model(**words, **pixels)
        side = max(image.shape[:2])  # the picture is padded to a square, on the right or below
        scores_QxL = seen.logits[0].sigmoid().cpu().numpy()
        return _detections(labels, scores_QxL, seen.pred_boxes[0], (side, side), image.shape[:2])


class GroundingDino:
    """Grounding DINO (arXiv 2303.05499). All labels are in one prompt: "label. label. label." """

    def __init__(self, folder: Path):
        self._tokenizer, self._images = loading.tokenizer(folder), loading.image_processor(folder)
        self._model = loading.model(folder)
        self.identity = loading.identity(folder)

    def detect(self, image: np.ndarray, labels: Sequence[str]) -> list[Detection]:
        """Returns one detection per query of the model, best first.

        image: uint8 [height, width, 3]. labels: any words; they are lower-cased.
        A score is the largest sigmoid of the logits of the label's tokens, which is the published
        score of a phrase. Boxes are clipped to the picture.
        Raises InputError if the labels together exceed the model's text length, or one is empty.
        """
        labels = list(dict.fromkeys(labels))
        if not labels:
            return []
        words, tokens = self._words(labels)
        pixels = loading.pixels(self._images, image, device=self._model.device)
        seen = self._model(**words.to(self._model.device), **pixels)
        scores_QxS = seen.logits[0].sigmoid().cpu().numpy()
        scores_QxL = np.stack([scores_QxS[:, of_label].max(axis=1) for of_label in tokens], axis=1)
        return _detections(labels, scores_QxL, seen.pred_boxes[0], image.shape[:2], image.shape[:2])

    def _words(self, labels: list[str]):
        """Returns the model's text inputs, and for each label the positions of its tokens."""
        phrases = [f"{label.lower()}. " for label in labels]
        words = self._tokenizer(
            "".join(phrases).rstrip(), return_offsets_mapping=True, return_tensors="pt"
        )
        most = self._model.config.max_text_len
        if words.input_ids.shape[1] > most:
            raise InputError(
                f"{len(labels)} labels are {words.input_ids.shape[1]} tokens "
                f"for Grounding DINO, which reads {most}; ask for fewer at a time"
            )
        starts_S, ends_S = words.pop("offset_mapping")[0].numpy().T  # special tokens span 0 to 0
        ends = np.cumsum([len(phrase) for phrase in phrases])
        tokens = [
            np.flatnonzero((starts_S >= end - len(phrase)) & (starts_S < end - 2) & (ends_S > 0))
            for phrase, end in zip(phrases, ends, strict=True)
        ]
        for label, of_label in zip(labels, tokens, strict=True):
            if not len(of_label):
                raise InputError(f"label {label!r} has no words; want the name of an object")
        return words, tokens


def _detections(
    labels: list[str], scores_QxL: np.ndarray, boxes_Qx4, frame: tuple[int, int], size
) -> list[Detection]:
    """Returns a detection for each box in the picture, with its best label, best first.

    Args:
      boxes_Qx4: centre x and y, width and height, in [0, 1] of the frame; a tensor.
      frame: height and width, in pixels, of the model's input. size: of the picture, in its corner.
    """
    centre_Qx2, extent_Qx2 = np.split(boxes_Qx4.cpu().numpy(), 2, axis=1)
    corners_Qx2x2 = np.stack([centre_Qx2 - extent_Qx2 / 2, centre_Qx2 + extent_Qx2 / 2], axis=1)
    corners_Qx2x2 = np.clip(corners_Qx2x2 * frame[::-1], 0, size[::-1])
    found = [
        Detection(labels[scores.argmax()], float(scores.max()), tuple(corners.flatten().tolist()))
        for scores, corners in zip(scores_QxL, corners_Qx2x2, strict=True)
        if (corners[1] > corners[0]).all()
    ]
    return sorted(found, key=lambda detection: -detection.score)
