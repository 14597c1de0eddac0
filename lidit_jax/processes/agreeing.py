"""Shares with all processes what one has found: an error, a value, and its changes to files."""

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

_TOLD = 2000  # bytes of an error that are sent to the other processes
# Seconds that a network filesystem may take to show another machine's changes: Linux's NFS may show
# the old state for up to a minute. A file with a name never used before is seen much sooner.
_NEWS = 90
_NEW_NAME = 30


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Runs a block on every process; an error that `errors.told` can describe is raised on all.

    All raise Passing if the error may be temporary on any process, else InputError. Without this
    the others would wait in their next collective for a process that has exited.
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
    """Returns the JSON values of all processes, in process order; every process must call it."""
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
    """Returns process 0's JSON value; every process must call it, others' values are ignored."""
    return gathered([value] if jax.process_index() == 0 else [])[0]


def told_by_each(text: str) -> list[str]:
    """Returns each process's text, cut to _TOLD bytes; every process must call it."""
    return gathered([text.encode()[:_TOLD].decode(errors="ignore")])


def _share(problem: str, passing: bool):
    """Sends every process all problems, and raises them if there are any."""
    everyone = told_by_each(problem)
    failed = [f"process {i}: {text}" for i, text in enumerate(everyone) if text]
    if failed:
        same = len(set(everyone)) == 1
        error = errors.Passing if any(gathered([passing])) else errors.InputError
        raise error(everyone[0] if same else "; ".join(failed)[:_TOLD])


@contextlib.contextmanager
def sharing(folder: pathlib.Path) -> Iterator[None]:
    """Makes `folder` and checks that all processes see the same one.

    If the block fails, removes the folders that it made, unless they have files by now.
    Raises InputError on every process if they do not. A lone process makes and checks nothing.
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
            with contextlib.suppress(OSError):  # it has someone else's files by now
                path.rmdir()
        raise


def _check_shared(folder: pathlib.Path, made: list[pathlib.Path]):
    """Raises InputError unless all see one `folder`; process 0 adds folders it makes to `made`."""
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
                    f"{folder} is not the folder that process 0 sees by this name; put it on a "
                    f"filesystem that all machines share"
                ),
                _NEW_NAME,
            )
    finally:
        if chief:
            token.unlink()


def await_news(seen: Callable[[], bool], otherwise: Exception, limit: float | None = None):
    """Waits until `seen()`: another machine's file changes show here.

    Raises `otherwise` after `limit` seconds, by default _NEWS.
    """
    deadline = time.monotonic() + (limit or _NEWS)
    while not seen():
        if time.monotonic() > deadline:
            raise otherwise
        time.sleep(0.5)
