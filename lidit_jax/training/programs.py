"""Compiled programs: one for each image size, cached between starts."""

import contextlib
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
from jax.experimental.compilation_cache import compilation_cache

from lidit_jax.batch import Batch
from lidit_jax.training.state import TrainState

T = TypeVar("T")


@contextlib.contextmanager
def kept_in(folder: pathlib.Path) -> Iterator[None]:
    """In the block, JAX caches in `folder` what takes seconds to compile.

    Only process 0 writes; all read. Does nothing if the user has chosen a folder, or none
    (JAX_COMPILATION_CACHE_DIR), or on CPUs: a program compiled for one CPU may crash another.
    """
    if jax.config.jax_compilation_cache_dir is not None or jax.default_backend() == "cpu":
        yield
        return
    compilation_cache.reset_cache()  # programs so far were compiled without a cache
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()  # otherwise JAX keeps this folder for the next run


def compile_each(
    function: Callable[[TrainState, Batch], T],
    like: TrainState,
    specs: Sequence[Batch],
    tell: str = "",
    alive: Callable[[], None] = lambda: None,
) -> Callable[[TrainState, Batch], T]:
    """Compiles a jitted function for batches of these specs; the result accepts no others.

    Each bin of a data set has its own shape; a program first needed after hours of training would
    stall every process then. Compiles one after the other, since one TPU compilation keeps all
    cores busy. tell: the program's name in the line printed as each is done; "" prints none. alive:
    called as each is done.
    """
    programs = {}
    for number, spec in enumerate(specs, 1):
        begun = time.perf_counter()
        programs[_shape(spec)] = function.lower(like, spec).compile()
        alive()
        if tell:
            _, height, width, _ = _shape(spec)
            took = time.perf_counter() - begun
            print(
                f"{tell} {number} of {len(specs)}, for {height} x {width} latents: {took:.1f} s",
                flush=True,
            )
    return lambda state, batch: programs[_shape(batch)](state, batch)


def _shape(batch: Batch) -> tuple[int, ...]:
    return batch.latents_BxHxWxC.shape
