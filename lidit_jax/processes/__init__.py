"""Several processes that train as one: their start, what they must agree on, their end.

place      which process this is          clusters  ... by the environment of SLURM, GKE and others
meeting    all are there, and are about to do the same; else every one ends with the same line
"""

import contextlib
import functools
import itertools
import json
import math
import os
import pathlib
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lidit_jax import errors
from lidit_jax.processes.meeting import meet
from lidit_jax.processes.place import Place

_TOLD = 2000  # bytes of an error that the other processes get to know
_LINGER = 3  # seconds
# Seconds that a network filesystem may take to show what another machine did: Linux's NFS goes on to show
# what was there before for up to a minute. A file of a name that never was is seen much sooner.
_NEWS = 90
_NEW_NAME = 30
_UNSAVED = (
    143  # of a process that is stopped and could not save: what a shell calls a death by SIGTERM
)
_here: Place | None = None


class Stopped(Exception):
    """The scheduler wants its machines back; what is done is saved."""

    STATUS = 75  # of the process: EX_TEMPFAIL of sysexits.h


def start(place: Place, facts: Callable[[], dict[str, Any]], timeout: int):
    """Joins this process with the others, before anything else of JAX is used.

    Args:
      place: this process' place.
      facts: returns what must be equal on every process; see `meeting.meet`.
      timeout: seconds to wait for the others.

    On CPUs JAX's persistent compilation cache is off from here on, whatever folder it was given.

    Raises, the same on every process, InputError if they cannot train as one, and `errors.Passing` if
    one is missing, or cannot read now what it is to tell.
    """
    global _here
    _here = place
    found, problem = {}, None
    try:
        found = facts()
    except (errors.InputError, OSError) as e:
        if errors.told(e) is None:
            raise
        problem = e
    meet(place, found, problem, timeout)
    jax.config.update(
        "jax_cpu_collectives_implementation", "gloo"
    )  # of a CPU; others have their own
    jax.distributed.initialize(
        place.coordinator, place.processes, place.process_id,
        local_device_ids=None if place.device is None else [place.device],
        cluster_detection_method="deactivate",
        initialization_timeout=timeout,
    )  # fmt: skip
    if jax.default_backend() == "cpu":
        # Of programs that were read from JAX's cache, Gloo's exchanges meet others than their own.
        jax.config.update("jax_enable_compilation_cache", False)
    barrier("start")


def name() -> str:
    """Returns which process this is, to be put behind "error"; "" if it trains alone."""
    return f" ({_here})" if _here else ""


def use_cpu(devices: int):
    """Makes this process compute on the CPU, as so many devices. Call it before JAX is used."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


def barrier(name: str):
    """Waits until every process has come this far."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def connect(mesh: jax.sharding.Mesh):
    """Lets the CPU devices of a mesh find one another, in every group that may exchange numbers.

    Gloo gives each new group 30 seconds for all to come, and compiling may part them by more than that.
    """
    if jax.process_count() == 1 or mesh.devices.flat[0].platform != "cpu":
        return
    split = [name for name in mesh.axis_names if mesh.shape[name] > 1]
    for size in range(1, len(split) + 1):
        for axes in itertools.combinations(split, size):
            where = jax.sharding.PartitionSpec(axes)
            count = math.prod(mesh.shape[name] for name in axes)
            ones = jax.make_array_from_callback(
                (count,), jax.sharding.NamedSharding(mesh, where), lambda index: np.ones(1)
            )
            add = functools.partial(jax.lax.psum, axis_name=axes)
            summed = jax.shard_map(add, mesh=mesh, in_specs=where, out_specs=where)
            jax.block_until_ready(jax.jit(summed)(ones))


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


@contextlib.contextmanager
def heeding_sigterm() -> Iterator[Callable[[], bool]]:
    """Yields what tells whether to stop now, since SIGTERM has come; to be asked once at every step.

    Processes that JAX has joined agree by its own means on the step, and all of them must ask. Of a lone
    one only the main thread may wait for signals; in another it is never told.
    """
    came = []  # no Event: its lock is not to be taken by a handler within a handler
    if jax.distributed.is_initialized():
        # JAX compares how often it was asked: with steps, a resumed run would miss what came before.
        yield lambda: bool(came) or _heard(came)
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda: bool(came)
        return
    before = signal.signal(signal.SIGTERM, lambda *_: came.append(True))
    try:
        yield lambda: bool(came)
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: it was not Python's


_asked = itertools.count(1)


def _heard(came: list) -> bool:
    """Asks JAX, which says so but once, whether SIGTERM has come, and keeps that in `came`."""
    if multihost_utils.reached_preemption_sync_point(next(_asked)):
        came.append(True)
    return bool(came)


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Ends the process, unsaved, with a line that `what` took longer, unless a block ends in time. 0: no limit."""

    def give_up():
        print(f"error{name()}: {what} took longer than {seconds:g} s", file=sys.stderr, flush=True)
        os._exit(_UNSAVED)

    timer = threading.Timer(seconds, give_up)
    timer.daemon = True
    if seconds:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def end():
    """Parts the processes; each must call it."""
    if jax.distributed.is_initialized():
        barrier("end")
        jax.distributed.shutdown()


def leave(status: int):
    """Ends this process by an error. An orderly end would wait for the others, who may wait for it.

    Process 0 stays for a moment: when it goes JAX aborts the others, who may have the same error to tell.
    """
    if jax.distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_LINGER if jax.process_index() == 0 and jax.process_count() > 1 else 0)
        os._exit(status)
    sys.exit(status)


__all__ = [
    "Place", "Stopped", "await_news", "barrier", "connect", "end", "from_first", "gathered",
    "heeding_sigterm", "leave", "name", "sharing", "start", "together", "told_by_each", "use_cpu",
    "within",
]  # fmt: skip
