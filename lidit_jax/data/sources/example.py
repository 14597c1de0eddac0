"""What a source yields: `Example`, a picture that is not made until asked for, and its captions."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np


@dataclasses.dataclass(frozen=True)
class Caption:
    text: str
    language: str = "en"  # ISO 639-1


@dataclasses.dataclass(frozen=True)
class Example:
    """One picture and its captions. It can be pickled, so that other processes can draw it.

    key: unique in the source, and the same at every run.
    image: (height, width) -> uint8 [height, width, 3]. A photograph is decoded, scaled to cover
      that size and cropped; a drawing is drawn at that size.
    captions: one or more; which of them training sees is the recipe's business.
    metadata: whatever else is known, JSON-serialisable.
    """

    key: str
    image: Callable[[int, int], np.ndarray]
    captions: tuple[Caption, ...]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


class Source(Protocol):
    """A finite set of examples, always in the same order."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Example]: ...

    def prompts(self, count: int) -> list[str]:
        """Returns `count` prompts to judge a model of this set by; fewer if there are not so many."""

    def describe(self) -> dict[str, Any]:
        """Returns JSON: name, version, licence, options. It changes if an example does."""


def on_white(square: Callable[[int], np.ndarray], height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: `square(side)`, as large as fits, amid white."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[top : top + side, left : left + side] = square(side)
    return picture
