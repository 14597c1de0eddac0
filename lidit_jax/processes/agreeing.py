"""What one process has found, all get to know: a mistake, a value, and what it did to files."""

import contextlib
import json
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lidit_jax import errors

_TOLD = 2000  # bytes of an error that the other processes get to know
# Seconds that a network filesystem may take to show what another machine did: Linux's NFS goes on to show
# what was there before for up to a minute. A file of a name that never was is seen much sooner.
_NEWS = 90
_NEW_NAME = 30


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Runs a block that every process runs; what `errors.told` can tell of one ends all of them with its line.

    Where it may pass for one, Passing is raised on all, and InputError else. Without this the others would
    wait in their next collective for a process that has left.
    """
    problem, passing = "", False
    try:
        yield
    except (errors.InputError, errors.Passing, OSError) as e:
        problem, passing = errors.told(e), errors.is_passing(e)
        if jax.process_count() == 1 or problem is None:
            raise
    if jax.process_count() > 1:
        _share(problem, passing)


def gathered(values: list[Any]) -> list[Any]:
    """Returns the JSON values of every process, process after process; each must call it."""
    if jax.process_count() == 1:
        return values
    mine = json.dumps(values).encode() if values else b""
    longest = int(multihost_utils.process_allgather(np.int32(len(mine))).max())
    if not longest:
        return []
    padded = np.frombuffer(mine.ljust(longest), np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [value for row in rows for value in json.loads(bytes(row).strip() or b"[]")]


def from_first(value: Any) -> Any:
    """Returns process 0's JSON value; each must call it, and only process 0's own is looked at."""
    return gathered([value] if jax.process_index() == 0 else [])[0]


def told_by_each(text: str) -> list[str]:
    """Returns what each process told, all calling this, cut to _TOLD bytes."""
    return gathered([text.encode()[:_TOLD].decode(errors="ignore")])


def _share(problem: str, passing: bool):
    """Tells every process the problems of all, and raises them if there are any."""
    everyone = told_by_each(problem)
    failed = [f"process {i}: {text}" for i, text in enumerate(everyone) if text]
    if failed:
        same = len(set(everyone)) == 1
        error = errors.Passing if any(gathered([passing])) else errors.InputError
        raise error(everyone[0] if same else "; ".join(failed)[:_TOLD])


@contextlib.contextmanager
def sharing(folder: pathlib.Path) -> Iterator[None]:
    """Within it every process sees one and the same `folder`; if the block fails, none was made for it.

    Raises InputError, on every process, if they do not. One process alone makes and asks nothing.
    """
    if jax.process_count() == 1:
        yield
        return
    made = []
    try:
        _check_shared(folder, made)
        yield
    except BaseException:
        for path in reversed(made):
            with contextlib.suppress(OSError):  # it has another's files by now
                path.rmdir()
        raise


def _check_shared(folder: pathlib.Path, made: list[pathlib.Path]):
    """Raises InputError unless all see the same `folder`; process 0 adds what it makes to `made`."""
    mine = np.frombuffer(uuid.uuid4().bytes, np.uint8)
    token = folder / f".shared-{bytes(multihost_utils.broadcast_one_to_all(mine)).hex()}"
    chief = jax.process_index() == 0
    with together():
        if chief:
            for path in (*reversed(folder.parents), folder):
                if not path.is_dir():
                    path.mkdir()
                    made.append(path)
            token.touch()
    try:
        with together():
            await_news(
                token.exists,
                errors.InputError(
                    f"{folder} is not the folder that process 0 has by this name; put it on a filesystem "
                    f"that all machines share"
                ),
                _NEW_NAME,
            )
    finally:
        if chief:
            token.unlink()


def await_news(seen: Callable[[], bool], otherwise: Exception, limit: float | None = None):
    """Returns once `seen`, of what another machine did to files; raises `otherwise` after `limit` seconds, or _NEWS."""
    deadline = time.monotonic() + (limit or _NEWS)
    while not seen():
        if time.monotonic() > deadline:
            raise otherwise
        time.sleep(0.5)
