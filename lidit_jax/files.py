"""Files that are whole or absent: written under a temporary name, then renamed."""

import contextlib
import hashlib
import json
import os
import pathlib
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from lidit_jax import errors

_PNG_HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
_PNG_TAIL = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


@contextlib.contextmanager
def atomic(path: str | os.PathLike, first: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; it is renamed to `path` if the block succeeds.

    first: where several processes write `path` at once, the first one's stays.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if first:
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_folder(folder: pathlib.Path, flag: str):
    """Raises InputError, before there is anything to write, unless `folder` is one or can be made."""
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "cannot be written to" if nearest.is_dir() else "is a file"
        raise errors.InputError(f"--{flag} {folder}: {nearest} {why}; give another folder")


def remove_leftovers(path: str | os.PathLike):
    """Removes the temporary files of writers of `path` that were killed. None may be writing it now."""
    path = pathlib.Path(path)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)


def write_json(path: str | os.PathLike, value: Any, first: bool = False):
    """Writes indented JSON, atomically; see `atomic`. Raises ValueError for a NaN or an infinity."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path, first) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: str | os.PathLike, what: str, *keys: str) -> dict[str, Any]:
    """Reads a JSON object; InputError if it is missing, is none, or lacks one of `keys`.

    what: a noun for what it is.
    """
    try:
        value = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise errors.InputError(f"no {what} at {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as e:
        raise _damaged(path, what, e) from None
    if not isinstance(value, dict):
        raise _damaged(path, what, "no JSON object")
    for key in keys:
        if key not in value:
            raise _damaged(path, what, f"it has no {key!r}")
    return value


def _damaged(path, what, why) -> errors.InputError:
    return errors.InputError(
        f"{path} is damaged, not the {what} it should be: {why}; delete it and make it again"
    )


def digest(value: Any) -> str:
    """Returns the SHA-256 of a JSON-serialisable value, in hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write_npy(path: str | os.PathLike, array: np.ndarray, first: bool = False):
    """Writes one numpy array, atomically; see `atomic`."""
    with atomic(path, first) as temporary, open(temporary, "wb") as f:
        np.save(f, array, allow_pickle=False)


def write_png(path: str | os.PathLike, image_HxWx3: np.ndarray):
    """Writes a uint8 picture as PNG, atomically."""
    with atomic(path) as temporary:
        Image.fromarray(image_HxWx3).save(temporary, format="PNG")


def is_whole_png(path: str | os.PathLike, size: Sequence[int]) -> bool:
    """Whether a file begins as the PNG of a picture of `size` (height, width), and ends as a PNG.

    What is between is not read. False if there is no file.
    """
    try:
        with open(path, "rb") as f:
            head = f.read(24)
            f.seek(-min(12, len(head)), os.SEEK_END)
            tail = f.read()
    except FileNotFoundError:
        return False
    height, width = size
    return head == _PNG_HEAD + struct.pack(">II", width, height) and tail == _PNG_TAIL


def picture_grid(
    images: list[np.ndarray], columns: int, height: int = 96, gap: int = 2
) -> np.ndarray:
    """Returns uint8 pictures side by side, row by row, on a grey ground, each centred in its cell.

    All are enlarged alike, a whole number of times, as far as the tallest stays within `height`;
    without interpolation, so that pixels stay visible.
    """
    tallest, widest = (max(image.shape[side] for image in images) for side in (0, 1))
    zoom = max(1, height // tallest)
    height, width = tallest * zoom, widest * zoom
    rows = -(-len(images) // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 128, np.uint8)
    for i, image in enumerate(images):
        large = image.repeat(zoom, 0).repeat(zoom, 1)
        y = gap + (i // columns) * (height + gap) + (height - large.shape[0]) // 2
        x = gap + (i % columns) * (width + gap) + (width - large.shape[1]) // 2
        canvas[y : y + large.shape[0], x : x + large.shape[1]] = large
    return canvas
