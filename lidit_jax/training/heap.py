"""Keeps the memory of a step's temporaries for the next step when computing on a CPU.

XLA asks malloc for all temporaries of a program at once, hundreds of MB, when the program is
called, and frees them when it ends. For so much, glibc asks the system anew every time, and the
system clears it page by page (docs/performance.md has the cost). glibc can keep so much only in the
main thread, so programs run there. None of this affects other platforms, or other mallocs.
"""

import contextlib
import ctypes
from collections.abc import Iterator

import jax

_LIBC = ctypes.CDLL(None)
_IS_GLIBC = hasattr(_LIBC, "malloc_trim")
# From malloc.h: number of a setting -> its value while the heap is kept, and afterwards. Once set,
# glibc no longer adapts the second one, so afterwards it is the most that glibc would reach.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_AFTERWARDS = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 2**26}


def compute_here():
    """Makes CPU programs run in the calling thread, which waits meanwhile. Call before using JAX.

    JAX does this for programs on one device whose arguments are ready; others run in JAX's own
    threads and gain nothing from `kept`.
    """
    if _IS_GLIBC:
        jax.config.update("jax_cpu_enable_async_dispatch", False)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """If JAX computes on a CPU, malloc returns none of the main thread's memory during the block.

    Before and after it, all free memory is returned to the system.
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
