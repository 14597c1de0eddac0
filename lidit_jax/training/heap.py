"""The heap, where a CPU computes: a step's temporaries are kept for the next step, and not given back in between.

XLA asks malloc for all temporaries of a program at once, hundreds of MB, when it is called, and frees them
when it ends. glibc asks the system for anything that large, every time, and the system clears it page by
page: up to a third of a step (docs/performance.md). It can keep memory for the main thread alone, so the
steps are computed there.
"""

import contextlib
import ctypes
from collections.abc import Iterator

import jax

# glibc's malloc.h, mallopt(3): number -> what it is while memory is kept, and glibc's own value.
_MMAP_MAX, _TRIM_THRESHOLD = -4, -1
_KEEPING = {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1}
_GLIBC = {_MMAP_MAX: 65536, _TRIM_THRESHOLD: 128 * 1024}


def compute_here():
    """Has a CPU compute in the thread that asks for it. Call it before JAX is used."""
    jax.config.update("jax_cpu_enable_async_dispatch", False)


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within it malloc keeps what the main thread frees, where JAX computes on a CPU, under glibc.

    The temporaries of a program are among it after `compute_here`, if its arguments are there when it is called.
    Afterwards all is given back, and malloc's two settings are glibc's defaults.
    """
    libc = ctypes.CDLL(None)
    if jax.default_backend() != "cpu" or not hasattr(libc, "malloc_trim"):
        yield
        return
    for number, value in _KEEPING.items():
        libc.mallopt(number, value)
    try:
        yield
    finally:
        for number, value in _GLIBC.items():
            libc.mallopt(number, value)
        libc.malloc_trim(0)
