"""What a source yields: `Example`, a picture made on demand, and its captions; or `Unusable`, an
entry that the source cannot give, and why.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from lidit_jax.data.buckets import Size


@dataclasses.dataclass(frozen=True)
class Caption:
    """One text about a picture. Origin "synthetic": by a captioning model. Language "": unknown."""

    text: str
    language: str = ""  # ISO 639-1
    origin: str = "original"  # or "synthetic"


class Picture(Protocol):
    """A picture that is read and made on demand. It can be pickled and made in another process."""

    def size(self) -> Size:
        """Returns (height, width) as `pixels` would find it, without decoding.

        Raises images.ImageError if it is not a picture, or one that must not be decoded.
        """

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Returns uint8 [height, width, 3]. A photograph is decoded, scaled to cover that size and
        centre-cropped; a drawing is drawn at that size.

        Raises images.ImageError if it cannot be decoded.
        """

    def notes(self) -> tuple[str, ...]:
        """Returns how `pixels` mends the picture, as names in images.NOTES, without decoding.

        Raises images.ImageError as `size` does.
        """

    def digest(self) -> str:
        """Returns what identifies the picture's content: a hash, or the name of a drawing.

        Raises images.ImageError if it cannot be read.
        """


@dataclasses.dataclass(frozen=True)
class Example:
    """One picture and its captions.

    key: unique in the source, and the same in every run.
    captions: all that are known; rules may drop some, and training sees one at a time.
    metadata: what else is known, JSON-serialisable. Rules read `width`, `height`, `aesthetic`,
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
    """An entry of a source that is not an example: its key, and the named reason."""

    key: str
    reason: str

    def __post_init__(self):
        object.__setattr__(self, "key", _printable(self.key))


def _printable(key: str) -> str:
    """Returns a key in which bytes of file names that are not UTF-8 are escaped, such as \\xe9."""
    return (
        key
        if key.isascii()
        else key.encode(errors="surrogatepass").decode(errors="backslashreplace")
    )


class Source(Protocol):
    """A finite set of examples, always in the same order.

    Its options are the arguments of `__init__`, each annotated: a number, a text, a bool, a dict or
    `Sequence[str]`. One without a default must be given; `sources.PLACES` are the names of those
    that say where the set is, not what it holds. A filesystem that does not answer raises OSError;
    what is there but cannot be used is `Unusable`, with a reason of `fields.REASONS` or
    `images.REASONS`.
    """

    def __len__(self) -> int:
        """The number of examples; an estimate if counting would mean reading everything."""

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        """Yields the i-th of `n` consecutive pieces, which together are the source in its order.

        A piece may be empty if a file cannot be divided. Reading one does not read the others.
        """

    def prompts(self, count: int) -> list[str]:
        """Returns `count` prompts for evaluating a model of this set; none if captions suffice."""

    def describe(self) -> dict[str, Any]:
        """Returns JSON: name, version, licence, options.

        It changes if an example does, as far as file names and sizes show it.
        """


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A picture without a size of its own: `draw(height, width)` makes it at any size.

    identity: a name for what it draws, unique in the source.
    aspect: (height, width) with the ratio that it wants; a square by default.
    """

    draw: Callable[[int, int], np.ndarray]
    identity: str
    aspect: Size = (1, 1)

    def size(self) -> Size:
        """As large as any training size, so that no rule finds it too small."""
        unit = 2**14 // max(self.aspect)
        return (self.aspect[0] * unit, self.aspect[1] * unit)

    def pixels(self, height: int, width: int) -> np.ndarray:
        return self.draw(height, width)

    def notes(self) -> tuple[str, ...]:
        return ()

    def digest(self) -> str:
        return self.identity


def on_white(square: Callable[[int], np.ndarray], height: int, width: int) -> np.ndarray:
    """Returns uint8 [height, width, 3]: `square(side)`, as large as fits, centred on white."""
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    picture = np.full((height, width, 3), 255, np.uint8)
    picture[top : top + side, left : left + side] = square(side)
    return picture
