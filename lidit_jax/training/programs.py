"""Compiled programs: one for each size of pictures, kept from one start to the next."""

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
    """Within it JAX keeps what it compiles for seconds in `folder`, and finds it there again.

    Process 0 alone writes; all read. Nothing is changed where the user has chosen a folder, or none
    (JAX_COMPILATION_CACHE_DIR), nor on CPUs: what is compiled for one may crash another.
    """
    if jax.config.jax_compilation_cache_dir is not None or jax.default_backend() == "cpu":
        yield
        return
    compilation_cache.reset_cache()  # what was compiled so far was looked for nowhere
    jax.config.update("jax_compilation_cache_dir", str(folder.absolute()))
    try:
        yield
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()  # or JAX stays with this folder for another run


def compile_each(
    function: Callable[[TrainState, Batch], T],
    like: TrainState,
    specs: Sequence[Batch],
    tell: str = "",
    alive: Callable[[], None] = lambda: None,
) -> Callable[[TrainState, Batch], T]:
    """Returns a jitted function, compiled by now for batches of these specs and of no others.

    A data set's bins are of one shape each; a program that is first wanted after hours of training
    would stop every process then. One after the other, since the compiler of TPUs keeps all cores busy
    with one. tell: what a program is called in the line that is printed as each is done; "" prints none.
    alive: is called as each is done.
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
