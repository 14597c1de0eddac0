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

UNLIMITED = 2**20  # open files, where the system sets no limit

SEAL = "sealed"  # the key of a JSON file's hash of its own content
BY_HAND = "by hand"  # what a person writes there who has changed the file
REMEDY = "delete it and make it again"
_PNG_HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR"
_PNG_TAIL = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))


@contextlib.contextmanager
def atomic(path: str | os.PathLike, first: bool = False) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`; it is renamed to `path` if the block succeeds.

    first: where several processes write `path` at once, the first one's stays; the last one's, where the
      filesystem has no hard links and they end together.
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
    """Gives a file this name. Raises FileExistsError if there is one of that name.

    Filesystems over object stores, and Google Drive's, have no links.
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
    """Makes a file, empty, that `remove_leftovers` of other processes leaves alone until the block ends."""
    with open(temporary, "wb") as f:
        take_lock(f)
        yield


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Holds a lock on the file `path`, which is made; waits for whoever else holds it, on any machine.

    The system lets go of it when a process ends, however it ends. Where the filesystem has no locks, nothing
    is locked.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        take_lock(f, wait=True)
        yield


def take_lock(f: IO, wait: bool = False) -> bool:
    """Takes a lock on an open file, until it is closed; False if another process has it now.

    wait: until that one lets go of it. True, and nothing is locked, where the filesystem has no locks.
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
    """Takes a lock on an open file, until it is closed. Raises InputError if another process has it now.

    what: what the other does.
    """
    if not take_lock(f):
        raise errors.InputError(f"another process {what} now; wait for it, or stop it")


def allow_open() -> int:
    """Lets this process open as many files as the system allows it, which may be more than at first; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = UNLIMITED if hard == resource.RLIM_INFINITY else hard
    if soft not in (most, resource.RLIM_INFINITY):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most


def check_folder(folder: pathlib.Path, flag: str):
    """Raises InputError, before there is anything to write, unless `folder` is one or can be made."""
    nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        why = "cannot be written to" if nearest.is_dir() else "is a file"
        raise errors.InputError(f"--{flag} {folder}: {nearest} {why}; give another folder")


def check_own_folder(folder: pathlib.Path, flag: str):
    """As `check_folder`; raises InputError also for a run or a data set, whose files would be overwritten."""
    check_folder(folder, flag)
    for name, kind in (("checkpoints", "a run"), ("recipe.json", "a data set")):
        if (folder / name).exists():
            raise errors.InputError(f"--{flag} {folder} is {kind}; give a folder of its own")


def remove_leftovers(path: str | os.PathLike):
    """Removes the temporary files of writers of `path` that were killed.

    Those of `being_written` stay, where the filesystem has locks; else none may be writing now. The file's name may be a pattern, for
    all that match it.
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

    sealed: with a hash of its content, which `read_json` checks; else as others want to read it.

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

    what: a noun for what it is. remedy: what to do where it is damaged. holds: keys that it must have;
    a whole file of another kind, or one changed by hand, may lack them.
    sealed: its hash must be there, and be that of its content. False: it may be another program's, and
    a hash is checked where there is one.
    """
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
        value = json.loads(text, parse_constant=_no_number)
    except FileNotFoundError:
        raise errors.InputError(f"no {what} at {path}") from None
    except ValueError as e:  # no JSON, or no text
        raise _damaged(path, what, e, remedy) from None
    if not isinstance(value, dict):
        raise _damaged(path, what, "no JSON object", remedy)
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
    raise ValueError(f"it has the number {name}, which is none in JSON")


def check_holds(
    path: str | os.PathLike,
    what: str,
    value: dict[str, Any],
    holds: Sequence[str],
    remedy: str = REMEDY,
):
    """Raises InputError unless what `read_json` read has these keys."""
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
    """Writes one numpy array, atomically (see `atomic`), and behind it the SHA-256 of all before.

    `np.load` reads such a file as any other: it does not look at what follows an array.
    """
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    with atomic(path, first) as temporary:
        temporary.write_bytes(content.getvalue() + hashlib.sha256(content.getvalue()).digest())


def read_npy(path: str | os.PathLike, remedy: str = REMEDY) -> np.ndarray:
    """Reads what `write_npy` wrote; InputError, with what to do, if it is missing or damaged."""
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
