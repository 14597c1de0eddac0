"""Several processes that train as one: their start, what they must agree on, their end.

place      which process this is          clusters  ... by the environment of SLURM, GKE and others
meeting    all are there, and are about to do the same; else every one ends with the same line
agreeing   what one has found, a mistake or a value, all get to know
"""

import contextlib
import functools
import itertools
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from lidit_jax import errors
from lidit_jax.processes.agreeing import (
    await_news,
    from_first,
    gathered,
    sharing,
    together,
    told_by_each,
)
from lidit_jax.processes.meeting import meet
from lidit_jax.processes.place import Place

_LINGER = 3  # seconds
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


def leave(status: int, at_once: bool = False):
    """Ends this process by an error. An orderly end would wait for the others, who may wait for it.

    at_once: a lone one too, though XLA may be compiling, which an orderly end would take its memory from.
    Process 0 stays for a moment: when it goes JAX aborts the others, who may have the same error to tell.
    """
    if at_once or jax.distributed.is_initialized():
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
