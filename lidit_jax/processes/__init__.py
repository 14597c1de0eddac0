"""Multi-process training: how the processes start, what they must agree on, and how they end.

place      which process this is          clusters  the same, from SLURM, GKE and others
meeting    checks that all are present with the same facts; else all exit with the same message
agreeing   shares one process's error or value with all
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
_UNSAVED = 143  # exit status if stopped before saving: as a shell reports death by SIGTERM
_here: Place | None = None


class Stopped(Exception):
    """The scheduler wants its machines back; progress is saved."""

    STATUS = 75  # exit status: EX_TEMPFAIL of sysexits.h


def start(place: Place, facts: Callable[[], dict[str, Any]], timeout: int):
    """Joins this process with the others. Call it before any other use of JAX.

    Args:
      place: this process's place.
      facts: returns what must be equal on every process; see `meeting.meet`.
      timeout: seconds to wait for the others.

    On CPUs this disables JAX's persistent compilation cache, whatever folder it was given.

    Raises, on every process alike, InputError if they cannot train together, and `errors.Passing`
    if one is missing or cannot read its facts now.
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
    )  # for CPUs; other devices have their own
    jax.distributed.initialize(
        place.coordinator, place.processes, place.process_id,
        local_device_ids=None if place.device is None else [place.device],
        cluster_detection_method="deactivate",
        initialization_timeout=timeout,
    )  # fmt: skip
    if jax.default_backend() == "cpu":
        # In programs loaded from JAX's cache, Gloo's collectives meet the wrong counterparts.
        jax.config.update("jax_enable_compilation_cache", False)
    barrier("start")


def name() -> str:
    """Returns this process's name to append to "error"; "" if it trains alone."""
    return f" ({_here})" if _here else ""


def use_cpu(devices: int):
    """Makes this process use the CPU as `devices` devices. Call it before JAX is used."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", devices)


def barrier(name: str):
    """Waits until every process has reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def connect(mesh: jax.sharding.Mesh):
    """Connects the CPU devices of a mesh, in every group that may run a collective.

    Gloo gives each new group 30 seconds to assemble; compilation may delay some by more than that.
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
    """Yields a function, to be called once per step, that says whether SIGTERM asks to stop now.

    Processes joined by JAX use its own mechanism to agree on the step, and all of them must call
    the function. A lone process gets signals only in its main thread; in others it returns False.
    """
    came = []  # not an Event: a handler inside a handler must not take its lock
    if jax.distributed.is_initialized():
        # JAX compares call counts; with step numbers, a resumed run would miss an earlier signal.
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
    """Asks JAX whether SIGTERM has come and records it in `came`: JAX reports it only once."""
    if multihost_utils.reached_preemption_sync_point(next(_asked)):
        came.append(True)
    return bool(came)


@contextlib.contextmanager
def within(seconds: float, what: str) -> Iterator[None]:
    """Ends the process, unsaved and with a message, if the block exceeds `seconds`. 0: no limit.

    what: what the block does, for the message.
    """

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
    """Disconnects the processes; each must call it."""
    if jax.distributed.is_initialized():
        barrier("end")
        jax.distributed.shutdown()


def leave(status: int, at_once: bool = False):
    """Exits with an error status. A clean exit would wait for processes that may wait for it.

    at_once: exit abruptly even if alone: XLA may be compiling, and a clean exit would free its
    memory. Process 0 lingers: when it exits, JAX aborts the others, which may have the same error
    to report.
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
