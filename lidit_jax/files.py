"""Files that are whole or absent: written under a temporary name, then renamed."""

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import pathlib
import resource
import struct
import uuid
import zlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from PIL import Image

from lidit_jax import errors

UNLIMITED = 2**20  # open files, if the system sets no limit

SEAL = "sealed"  # the key of a JSON file's hash of its own content
BY_HAND = "by hand"  # what a person who has edited the file writes there instead
REMEDY = "delete it and make it again"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
_PNG_TAIL = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


@contextlib.contextmanager
def atomic(path: str | os.PathLike, first: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path next to `path`; it is renamed to `path` if the block succeeds.

    first: if several processes write `path` at once, keep the first one's file (the last one's, if
      the filesystem has no hard links and they finish together).
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        if first:
            with contextlib.suppress(FileExistsError):
                _link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _link(temporary: pathlib.Path, path: pathlib.Path):
    """Renames a file to `path`. Raises FileExistsError if `path` exists.

    Filesystems on object stores, and Google Drive, have no hard links.
    """
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.EPERM):
            raise
        if not path.exists():
            temporary.replace(path)


@contextlib.contextmanager
def being_written(temporary: pathlib.Path) -> Iterator[None]:
    """Creates an empty file that other processes' `remove_leftovers` spare until the block ends."""
    with open(temporary, "wb") as f:
        take_lock(f)
        yield


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Creates and locks the file `path`; waits while a process on any machine holds the lock.

    The system releases the lock when the process ends, however it ends. If the filesystem has no
    locks, nothing is locked.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        take_lock(f, wait=True)
        yield


def take_lock(f: IO, wait: bool = False) -> bool:
    """Locks an open file until it is closed; returns False if another process holds the lock.

    wait: wait for the lock instead. If the filesystem has no locks, returns True and locks nothing.
    """
    try:
        fcntl.flock(f, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def held_alone(f: IO, what: str):
    """Locks an open file until it is closed. Raises InputError if another process holds the lock.

    what: what the other process is doing, for the message.
    """
    if not take_lock(f):
        raise errors.InputError(f"another process {what} now; wait for it, or stop it")


def allow_open() -> int:
    """Raises this process's limit of open files to the most the system allows, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    if soft not in (most, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def mounted(name: str, path: str) -> pathlib.Path:
    """Returns the folder that a flag or a config key names. Raises InputError for a URL."""
    if "://" in path:
        raise errors.InputError(
            f"{name}={path}: want a folder on a mounted filesystem; docs/launch.md explains how to "
            f"mount a bucket"
        )
    return pathlib.Path(path).expanduser()


def check_folder(folder: pathlib.Path, flag: str):
    """Raises InputError unless `folder` is a writable folder or can be made; writes nothing."""
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "cannot be written to" if nearest.is_dir() else "is a file"
        raise errors.InputError(f"--{flag} {folder}: {nearest} {why}; give another folder")


def check_own_folder(folder: pathlib.Path, flag: str):
    """Like `check_folder`, but also refuses a run or data set, whose files would be overwritten."""
    check_folder(folder, flag)
    for name, kind in (("checkpoints", "a run"), ("recipe.json", "a data set")):
        if (folder / name).exists():
            raise errors.InputError(f"--{flag} {folder} is {kind}; give a separate folder")


def remove_leftovers(path: str | os.PathLike):
    """Removes temporary files of killed writers of `path`; its file name may be a glob pattern.

    Files inside `being_written` are kept if the filesystem has locks; if it has none, nobody may be
    writing now.
    """
    path = pathlib.Path(path)
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError, PermissionError), open(left, "r+b") as f:
            if take_lock(f):
                left.unlink()


def write_json(
    path: str | os.PathLike, value: dict[str, Any], first: bool = False, sealed: bool = True
):
    """Writes an object as indented JSON, atomically; see `atomic`.

    sealed: add a hash of the content, which `read_json` checks; False for files that other programs
      read.

    Raises ValueError for a NaN or an infinity.
    """
    if sealed:
        value = {k: v for k, v in value.items() if k != SEAL}
        value |= {SEAL: digest(json.loads(json.dumps(value, allow_nan=False)))}
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic(path, first) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(
    path: str | os.PathLike,
    what: str,
    sealed: bool = True,
    remedy: str = REMEDY,
    holds: Sequence[str] = (),
) -> dict[str, Any]:
    """Reads a JSON object that `write_json` wrote; InputError if it is missing or damaged.

    what: a noun for the file. remedy: what to do if it is damaged. holds: required keys; an intact
    file of another kind, or one edited by hand, may lack them.
    sealed: the hash is required and must match the content. False: the file may be another
    program's, and a hash is checked only if there is one.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        value = json.loads(text, parse_constant=_no_number)
    except FileNotFoundError:
        raise errors.InputError(f"no {what} at {path}") from None
    except ValueError as e:  # not JSON, or not text
        raise _damaged(path, what, e, remedy) from None
    if not isinstance(value, dict):
        raise _damaged(path, what, "not a JSON object", remedy)
    seal = value.pop(SEAL, None)
    if seal is None and sealed:
        raise _damaged(path, what, f"it has no {SEAL!r}, the sha256 of its content", remedy)
    if seal not in (None, BY_HAND, digest(value)):
        why = (
            f"its content is not what was written (its sha256 is not the one under {SEAL!r}; "
            f"if you changed it yourself, put {BY_HAND!r} there)"
        )
        raise _damaged(path, what, why, remedy)
    check_holds(path, what, value, holds, remedy)
    return value


def _no_number(name: str):
    raise ValueError(f"it contains {name}, which is not a JSON number")


def check_holds(
    path: str | os.PathLike,
    what: str,
    value: dict[str, Any],
    holds: Sequence[str],
    remedy: str = REMEDY,
):
    """Raises InputError unless a value from `read_json` has these keys."""
    for name in holds:
        if name not in value:
            raise _damaged(path, what, f"it has no {name!r}", remedy)


def _damaged(path, what, why, remedy) -> errors.InputError:
    return errors.InputError(f"{path} is damaged, not the {what} it should be: {why}; {remedy}")


def digest(value: Any) -> str:
    """Returns the SHA-256 of a JSON-serialisable value, in hex."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def checksum(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_npy(path: str | os.PathLike, array: np.ndarray, first: bool = False):
    """Writes a numpy array atomically (see `atomic`), followed by the SHA-256 of its bytes.

    `np.load` can read the file: it ignores what follows an array.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with atomic(path, first) as temporary:
        temporary.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())


def read_npy(path: str | os.PathLike, remedy: str = REMEDY) -> np.ndarray:
    """Reads what `write_npy` wrote; InputError, with the remedy, if it is missing or damaged."""
    try:
        content = pathlib.Path(path).read_bytes()
        content, seal = content[:-32], content[-32:]
        if hashlib.sha256(content).digest() != seal:
            raise ValueError("its sha256 is not the one at its end")
        return np.load(io.BytesIO(content), allow_pickle=False)
    except (OSError, EOFError, ValueError) as e:
        if errors.is_unreachable(e):
            raise
        raise errors.InputError(f"{path} is missing or damaged ({e}); {remedy}") from e


def write_png(path: str | os.PathLike, image_HxWx3: np.ndarray):
    """Writes a uint8 image as PNG, atomically."""
    with atomic(path) as temporary:
        Image.fromarray(image_HxWx3).save(temporary, format="PNG")


def is_whole_png(path: str | os.PathLike, size: Sequence[int]) -> bool:
    """Whether a file starts as the PNG of an image of `size` (height, width) and ends as a PNG.

    The bytes in between are not read. False if there is no file.
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
    """Returns a grid of uint8 images, row by row, on a grey background, each centred in its cell.

    All are enlarged by the same whole factor, the largest that keeps the tallest within `height`,
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
