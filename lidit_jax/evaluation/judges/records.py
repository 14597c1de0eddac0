"""The judges' interfaces and answers. Scorers are pure functions of these records.

A judge is a frozen third-party model, run by transformers from a local folder. Images are
uint8 [height, width, 3]; boxes are (x1, y1, x2, y2) in pixels of the image, x2 and y2 exclusive.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Detection:
    """A detected object: its class, confidence and box; `mask` is bool [height, width] or None."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """An answer to a yes-or-no question: P(yes) / (P(yes) + P(no)), and the judge's answer."""

    p_yes: float
    answer: str


class Detector(Protocol):
    """Detects objects."""

    identity: str  # class and hash of the weights; results of different identities are not mixed

    def detect(self, image: np.ndarray, labels: Sequence[str]) -> list[Detection]:
        """Returns detections of these classes, best first, regardless of their score.

        Raises InputError for a label that it does not know.
        """


class VQA(Protocol):
    """Answers questions about a picture."""

    identity: str

    def ask(self, image: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        """Returns one answer per question."""


class Embedder(Protocol):
    """Embeds pictures and texts in one space, like CLIP."""

    identity: str

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 unit vectors [n, E]."""

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 vectors [n, E], not normalised."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 unit vectors [n, E]."""


@dataclasses.dataclass(frozen=True)
class Judges:
    """The available judges, by kind; None = not given."""

    detector: Detector | None = None
    vqa: VQA | None = None
    clip: Embedder | None = None
