"""How the suite compiles: as fast as XLA can, since compilation is most of its time."""

import os
import pathlib
from importlib.metadata import version

_SETTINGS = {
    "jax_disable_most_optimizations": True,
    # Several tests compile the same programs.
    "jax_compilation_cache_dir": str(pathlib.Path(__file__).parent.parent / ".pytest_cache/jax"),
    "jax_persistent_cache_min_compile_time_secs": 0.2,
}
# Kernels by XLA's older emitters: a training step compiles in half the time. XLA ends a process that
# gives it a flag it does not know, so a JAX newer than what this was tried with goes without.
_NEWEST = (0, 10)
_KNOWN = tuple(map(int, version("jaxlib").split(".")[:2])) <= _NEWEST
_FLAGS = "--xla_cpu_use_fusion_emitters=false" if _KNOWN else ""
# How many threads XLA has, which are else as many as devices: of these, one that waits in two collectives
# at once holds two, so that another has none, and all wait for it until XLA ends the process.
_THREADS = {"NPROC": "32"}


def environment() -> dict[str, str]:
    """Returns what a process is to have in its environment."""
    jax = {name.upper(): str(value) for name, value in _SETTINGS.items()}
    return {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": _FLAGS} | _THREADS | jax


def set_up():
    """Gives this process eight devices, and all of this, before JAX starts."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.update(_THREADS)
    flags = (os.environ.get("XLA_FLAGS", ""), _FLAGS, "--xla_force_host_platform_device_count=8")
    os.environ["XLA_FLAGS"] = " ".join(flags)

    import jax

    for name, value in _SETTINGS.items():
        jax.config.update(name, value)
