"""The heap, where a CPU computes: the temporaries of a step are kept for the next step.

XLA asks malloc for all temporaries of a program at once, hundreds of MB, when the program is called, and
frees them when it ends. glibc asks the system for so much anew every time, and the system clears it page by
page (docs/performance.md has what that costs). Only in the main thread can glibc keep so much, so programs
are computed there. Nothing of this concerns other platforms, or another malloc than glibc's.
"""

import contextlib
import ctypes
from collections.abc import Iterator

import jax

_LIBC = ctypes.CDLL(None)
_IS_GLIBC = hasattr(_LIBC, "malloc_trim")
# Of malloc.h: number of a setting -> while the heap is kept, and afterwards. Once set, glibc no longer
# adapts the second to the program, so it stays at the most that glibc would come to.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_AFTERWARDS = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 2**26}


def compute_here():
    """Has a CPU compute a program in the thread that calls it, which waits meanwhile. Call it before JAX is used.

    JAX does so for programs of one device whose arguments are there; others go to threads of its own, and
    gain nothing by `kept`.
    """
    if _IS_GLIBC:
        jax.config.update("jax_cpu_enable_async_dispatch", False)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within it malloc gives nothing of the main thread's back to the system, if JAX computes on a CPU.

    Before and after it, all that is free is given back.
    """
    if jax.default_backend() != "cpu" or not _IS_GLIBC:
        yield
        return
    _LIBC.malloc_trim(0)
    _set(_KEEPING)
    try:
        yield
    finally:
        _set(_AFTERWARDS)
        _LIBC.malloc_trim(0)


def _set(values: dict[int, int]):
    for number, value in values.items():
        _LIBC.mallopt(number, value)
