"""Encoded pictures: where their bytes are, what their header says, and how they become RGB.

Pillow's readers are called directly, chosen by the first bytes: `Image.open` would warn about large
pictures, refuse some that are wanted, and try formats that no data set should have. Pillow's state
is not changed, so threads and other users of Pillow are not affected.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import re
import struct
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, Protocol

import numpy as np
from PIL import (
    BmpImagePlugin,
    ContainerIO,
    ExifTags,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lidit_jax import errors
from lidit_jax.data import buckets
from lidit_jax.data.buckets import Size

MAX_PIXELS = 2**28  # by the header; 16,384 x 16,384

REASONS = {
    "image-empty": "it has no bytes",
    "image-unknown": "its first bytes do not belong to a known format",
    "image-truncated": "it starts like a picture, but is truncated or damaged",
    "image-too-large": f"its header claims more than {MAX_PIXELS} pixels",
    "image-animated": "it has more than one frame",
    "image-mode": "its colours are neither RGB, grey, palette nor CMYK of 8 or 16 bits",
    "image-unreadable": "its file is missing or cannot be read",
}
NOTES = {
    "image-rotated": "turned according to its EXIF orientation",
    "image-cmyk": "CMYK, converted to RGB without its colour profile",
    "image-16bit": "16 bits per channel, scaled to 8",
    "image-alpha": "transparent, put on white",
    "image-palette": "converted to RGB through its palette",
    "image-grey": "grey, converted to RGB",
}

# By the first bytes. Of a JPEG with further pictures in it (MPO, from phones), the first is read.
READERS: dict[bytes, Callable[[BinaryIO], Image.Image]] = {
    rb"\xff\xd8\xff": JpegImagePlugin.JpegImageFile,
    rb"\x89PNG\r\n": PngImagePlugin.PngImageFile,
    rb"RIFF....WEBP": WebPImagePlugin.WebPImageFile,
    rb"GIF8[79]a": GifImagePlugin.GifImageFile,
    rb"BM": BmpImagePlugin.BmpImageFile,
    rb"II[*+]\0|MM\0[*+]": TiffImagePlugin.TiffImageFile,
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr"}
# What Pillow's readers raise for a damaged file.
_DAMAGE = (SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError)
_DAMAGE += (EOFError, RuntimeError, AssertionError, struct.error, zlib.error)


class ImageError(ValueError):
    """A picture that cannot be used. `reason` is one of REASONS."""

    def __init__(self, reason: str):
        super().__init__(reason)
        self.reason = reason


class Place(Protocol):
    """Where an encoded picture is."""

    def open(self) -> BinaryIO:
        """Returns its bytes as a file. Raises OSError."""


@dataclasses.dataclass(frozen=True)
class FilePath:
    path: str

    def open(self) -> BinaryIO:
        return open(self.path, "rb")


@dataclasses.dataclass(frozen=True)
class FileSlice:
    """`length` bytes of a file, from `offset` on."""

    path: str
    offset: int
    length: int

    def open(self) -> BinaryIO:
        return ContainerIO.ContainerIO(open(self.path, "rb"), self.offset, self.length)


@dataclasses.dataclass(frozen=True)
class InMemory:
    content: bytes

    def open(self) -> BinaryIO:
        return io.BytesIO(self.content)


@dataclasses.dataclass(frozen=True)
class Header:
    """Size in pixels, as shown; names in NOTES for what decoding mends."""

    size: Size
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A `Picture` in a file: JPEG, PNG, WebP, GIF, BMP or TIFF. Colour profiles are not applied."""

    place: Place

    def size(self) -> Size:
        """Returns (height, width) from the header, turned according to EXIF. Raises ImageError."""
        return self.header.size

    def notes(self) -> tuple[str, ...]:
        """Returns what `pixels` mends, by the names in NOTES. Raises ImageError."""
        return self.header.notes

    def pixels(self, height: int, width: int) -> np.ndarray:
        """Returns uint8 [height, width, 3]: decoded, turned, converted to RGB, then `buckets.fit`.

        Decoding is exact: a JPEG is not shrunk on the way. Raises ImageError.
        """
        content = self._read()
        with _reported():
            image = _open(io.BytesIO(content))
            turn = _turn(image)
            image = _rgb(image)
            image = image if turn is None else image.transpose(turn)
            return buckets.fit(np.asarray(image), (height, width))

    def digest(self) -> str:
        """Returns the SHA-256 of the encoded bytes. Raises ImageError."""
        return hashlib.sha256(self._read()).hexdigest()

    @functools.cached_property
    def header(self) -> Header:
        with _reported(), self.place.open() as file:
            image = _open(file)
            turn = _turn(image)
            width, height = image.size
            size = (width, height) if turn is not None and _swaps(turn) else (height, width)
            return Header(size, tuple(_notes(image)))

    def _read(self) -> bytes:
        with _reported(), self.place.open() as file:
            return file.read()


@contextlib.contextmanager
def _reported() -> Iterator[None]:
    """Raises ImageError for errors inside. Pillow's own OSErrors have no errno.

    An OSError of a network filesystem that does not answer is kept: it is not about the picture.
    """
    try:
        yield
    except ImageError:
        raise
    except OSError as e:
        if errors.is_unreachable(e):
            raise
        raise ImageError("image-truncated" if e.errno is None else "image-unreadable") from e
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as e:
        raise ImageError("image-too-large") from e
    except _DAMAGE as e:
        raise ImageError("image-truncated") from e


def _open(file: BinaryIO) -> Image.Image:
    """Reads the header. Raises ImageError for a picture that must not be decoded."""
    start = file.read(16)
    file.seek(0)
    if not start:
        raise ImageError("image-empty")
    reader = next((r for magic, r in READERS.items() if re.match(magic, start, re.DOTALL)), None)
    if reader is None:
        raise ImageError("image-unknown")
    image = reader(file)
    if image.width * image.height > MAX_PIXELS:
        raise ImageError("image-too-large")
    if getattr(image, "is_animated", False):
        raise ImageError("image-animated")
    if image.mode not in _MODES and not _is_16_bit(image):
        raise ImageError("image-mode")
    return image


def _orientation(image: Image.Image) -> int:
    """Returns the EXIF orientation, 1 if none. Unlike a PNG's own `getexif`, it reads no pixels."""
    try:
        return Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
    except (OSError, *_DAMAGE):  # damaged EXIF is no reason to lose the picture
        return 1


def _turn(image: Image.Image) -> Image.Transpose | None:
    """Returns how to turn the picture once decoded. Pillow turns a TIFF itself."""
    return None if image.format == "TIFF" else _TURNS.get(_orientation(image))


def _swaps(turn: Image.Transpose) -> bool:
    """Returns whether it exchanges height and width."""
    return turn in [_TURNS[orientation] for orientation in (5, 6, 7, 8)]


def _is_16_bit(image: Image.Image) -> bool:
    """Returns whether the file has 16 unsigned bits per channel; Pillow opens colours as 8-bit."""
    return any(re.search(r";16(?![A-Z]*S)", str(tile)) for tile in image.tile)


def _notes(image: Image.Image) -> Iterator[str]:
    if _orientation(image) in _TURNS:
        yield "image-rotated"
    if image.mode == "CMYK":
        yield "image-cmyk"
    if _is_16_bit(image):
        yield "image-16bit"
    if image.has_transparency_data:
        yield "image-alpha"
    if image.mode in ("P", "PA"):
        yield "image-palette"
    if image.mode in ("1", "L", "LA", "La", "I;16", "I;16B"):
        yield "image-grey"


def _rgb(image: Image.Image) -> Image.Image:
    """Decodes to RGB: transparent pixels are put on white, 16 bits are scaled to 8."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray(
            ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
