"""What a source yields: `Example`, a picture that is not made until asked for, and its captions;
or `Unusable`, what the source holds but cannot give, and why.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from lidit_jax.data.buckets import Size


@dataclasses.dataclass(frozen=True)
class Caption:
    """One text about a picture. Origin "synthetic" is a captioning model's; "" as language is not known."""

    text: str
    language: str = ""  # ISO 639-1
    origin: str = "original"  # or "synthetic"


class Picture(Protocol):
    """A picture that is read and made when asked for. It can be pickled, so that other processes make it."""

    def size(self) -> Size:
        """Returns (height, width) as `pixels` would find it, without decoding.

        Raises images.ImageError if it is no picture, or one that must not be decoded.
        """

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Returns uint8 [height, width, 3]. A photograph is decoded, scaled to cover that size and
        its centre cropped; a drawing is drawn at that size.

        Raises images.ImageError if it cannot be decoded.
        """

    def notes(self) -> tuple[str, ...]:
        """Returns how `pixels` mends the picture, by names of images.NOTES, without decoding.

        Raises images.ImageError as `size` does.
        """

    def digest(self) -> str:
        """Returns what tells the picture's content from others: a hash, or the name of a drawing.

        Raises images.ImageError if it cannot be read.
        """


@dataclasses.dataclass(frozen=True)
class Example:
    """One picture and its captions.

    key: unique in the source, and the same at every run.
    captions: all that are known; rules may drop some, and training sees one at a time.
    metadata: whatever else is known, JSON-serialisable. Rules read `width`, `height`, `aesthetic`,
      `punsafe`, `watermark`, `url` and `sha256` under these names.
    """

    key: str
    picture: Picture
    captions: tuple[Caption, ...]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        object.__setattr__(self, "key", _printable(self.key))


@dataclasses.dataclass(frozen=True)
class Unusable:
    """Something that a source holds but that is no example: its key, and the named reason."""

    key: str
    reason: str

    def __post_init__(self):
        object.__setattr__(self, "key", _printable(self.key))


def _printable(key: str) -> str:
    """Returns a key with the bytes of file names that are not UTF-8 spelt out, such as \\xe9."""
    return (
        key
        if key.isascii()
        else key.encode(errors="surrogatepass").decode(errors="backslashreplace")
    )


class Source(Protocol):
    """A finite set of examples, always in the same order."""

    def __len__(self) -> int:
        """The number of examples; where counting would mean reading everything, an estimate."""

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        """Yields the i-th of `n` consecutive pieces, which together are the source in its order.

        A piece may be empty, where a file cannot be divided. Reading one does not read the others.
        """

    def prompts(self, count: int) -> list[str]:
        """Returns `count` prompts to judge a model of this set by; none if its captions serve as well."""

    def describe(self) -> dict[str, Any]:
        """Returns JSON: name, version, licence, options.

        It changes if an example does, as far as names and sizes of files tell.
        """


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture without a size of its own: `draw(height, width)` makes it at any.

    identity: what it draws, in words that no other drawing of the source has.
    aspect: (height, width) whose ratio it wants; a square, unless said.
    """

    draw: Callable[[int, int], np.ndarray]
    identity: str
    aspect: Size = (1, 1)

    def size(self) -> Size:
        """As large as any picture is trained at, so that no rule finds it too small."""
        unit = 2**14 // max(self.aspect)
        return (self.aspect[0] * unit, self.aspect[1] * unit)

    def pixels(self, height: int, width: int) -> np.ndarray:
        return self.draw(height, width)

    def notes(self) -> tuple[str, ...]:
        return ()

    def digest(self) -> str:
        return self.identity


def on_white(square: Callable[[int], np.ndarray], height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: `square(side)`, as large as fits, amid white."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[top : top + side, left : left + side] = square(side)
    return picture
