"""What judges are asked and what they answer. Scorers are pure functions of these records.

A judge is a frozen model of somebody else's, run by transformers from a local folder. Images are
uint8 [height, width, 3]; boxes are (x1, y1, x2, y2) in pixels of the image, x2 and y2 exclusive.
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Detection:
    """An object that was found: its class, how sure, where; `mask` is bool [height, width] or None."""

    label: str
    score: float
    box: tuple[float, float, float, float]
    mask: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Answer:
    """To a yes-or-no question: P(yes) / (P(yes) + P(no)), and the word that a judge would say."""

    p_yes: float
    answer: str


class Detector(Protocol):
    """Finds objects."""

    identity: str  # class and hash of the weights; results are of one identity

    def detect(self, image: np.ndarray, labels: Sequence[str]) -> list[Detection]:
        """Returns what it found of these classes, best first, whatever the score.

        Raises InputError for a label that it cannot find.
        """


class VQA(Protocol):
    """Answers questions about a picture."""

    identity: str

    def ask(self, image: np.ndarray, questions: Sequence[str]) -> list[Answer]:
        """Returns one answer per question."""


class Embedder(Protocol):
    """Puts pictures and texts into one space, as CLIP does."""

    identity: str

    def images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 [n, E], each of length 1."""

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns float32 [n, E], of any length."""

    def texts(self, texts: Sequence[str]) -> np.ndarray:
        """Returns float32 [n, E], each of length 1."""


@dataclasses.dataclass(frozen=True)
class Judges:
    """The judges at hand, by what they do; None = none was given."""

    detector: Detector | None = None
    vqa: VQA | None = None
    clip: Embedder | None = None
