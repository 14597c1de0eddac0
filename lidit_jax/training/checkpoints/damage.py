"""Tells damaged checkpoints apart from problems with devices, permissions or the network."""

import contextlib
import errno
import pathlib
import textwrap
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from lidit_jax import errors, processes

# Messages of the operating system or TensorStore about files that exist and may be intact.
_ELSEWHERE = (
    "PERMISSION_DENIED", "UNAUTHENTICATED", "RESOURCE_EXHAUSTED", "UNAVAILABLE",
    "DEADLINE_EXCEEDED", "CANCELLED", "ABORTED", "Permission denied", "Too many open files",
    "Cannot allocate memory",
)  # fmt: skip
_LOST = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO, errno.EINVAL)
_Read = TypeVar("_Read")


class Damaged(errors.InputError):
    """A checkpoint's files are not what was saved. `folder`: the checkpoint's; `why`: a clause."""

    def __init__(self, folder: pathlib.Path, why: str):
        self.folder, self.why = folder, why
        earlier = [s for s in steps_in(folder.parent) if s < int(folder.name)]
        instead = f"remove it to use step {max(earlier)}" if earlier else "remove it to train again"
        super().__init__(f"checkpoint {folder} is damaged: {why}; {instead}")


def steps_in(folder: pathlib.Path) -> list[int]:
    """Returns the steps of the finished checkpoints that this process sees in `folder`, sorted."""
    if not folder.is_dir():
        return []
    # An unfinished checkpoint's name is not a bare number.
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal() and p.is_dir())


@contextlib.contextmanager
def blamed(folder: pathlib.Path) -> Iterator[None]:
    """Raises Damaged if a block cannot read the checkpoint in `folder` and the files are at fault.

    Orbax has no exception type for damage: it raises all kinds, including a bare `Exception`.
    """
    try:
        yield
    except (
        Damaged,
        MemoryError,
        jax.errors.JaxRuntimeError,
    ):  # the last: for example a device out of memory
        raise
    except Exception as e:
        elsewhere = errors.is_unreachable(e) or any(w in str(e) for w in _ELSEWHERE)
        if elsewhere or isinstance(e, OSError) and e.errno not in _LOST:
            raise
        why = (str(e).strip("'\"").splitlines() or [""])[0] or type(e).__name__
        raise Damaged(folder, f"it cannot be read ({textwrap.shorten(why, 200)})") from e


def agreed(folder: pathlib.Path, read: Callable[[], _Read]) -> _Read:
    """Returns `read()`, of the checkpoint in `folder`; if one process finds damage, all raise it.

    Every process calls this, and `read` must not wait for another process, because one may fail
    alone. Any other error ends its process, and thereby all. Raises Passing, on every process, if
    process 0 sees a checkpoint that another process does not come to see.
    """
    _await_seen(folder)
    found, why = None, ""
    try:
        with blamed(folder):
            found = read()
    except Damaged as e:
        if jax.process_count() == 1:
            raise
        why = e.why
    told = processes.told_by_each(why)
    if any(told):
        same = len(set(told)) == 1
        whys = [f"process {i}: {text}" for i, text in enumerate(told) if text]
        raise Damaged(folder, told[0] if same else "; ".join(whys))
    return found


def _await_seen(folder: pathlib.Path):
    if not processes.from_first(folder.is_dir()):  # reported when it is read
        return
    with processes.together():
        processes.await_news(
            folder.is_dir,
            errors.Passing(
                f"process 0 sees {folder}, but this process does not; start again when it does"
            ),
        )
