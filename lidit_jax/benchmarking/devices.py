"""Devices to compile for that need not be present: virtual CPU devices, or named TPUs and GPUs."""

import os
import re

import jax
from jax.experimental import topologies

from lidit_jax import errors
from lidit_jax.benchmarking import chips

# Compiler options. Triton's matrix products are tuned by running them; untuned, without a GPU, some
# do not compile.
OPTIONS = {"gpu": {"xla_gpu_enable_triton_gemm": False}}

# Without these, libtpu spends a long time asking a cloud's metadata server, and takes a lock that
# guards TPUs, though none are there. None of them changes the compiled program.
_WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def use_cpu():
    """Keeps JAX from claiming the accelerators of this machine: nothing will run on them."""
    jax.config.update("jax_platforms", "cpu")


def virtual(count: int) -> list[jax.Device]:
    """Returns `count` virtual CPU devices. Any number is possible until JAX has started.

    Raises InputError if JAX has started with fewer.
    """
    errors.check_range("--devices", count, 1)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        pass  # JAX has started, or XLA_FLAGS sets the number: it can no longer change
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise errors.InputError(
            f"--devices={count}, but JAX has {len(devices)} here; remove "
            f"--xla_force_host_platform_device_count from XLA_FLAGS, or set it to {count}"
        )
    return devices[:count]


def of_topology(name: str) -> list[jax.Device]:
    """Returns the devices of "v5e:8x8", a TPU slice, or "H200:4x8", four machines of eight GPUs.

    None of them is present: libtpu describes TPUs, and `chips` describes GPUs. Raises InputError
    for an invalid name, or if the compiler for these devices is not installed.
    """
    chip = chips.CHIPS[chips.of_topology(name)]
    return _gpus(name, chip) if chip.described else _tpus(name)


def _tpus(name: str) -> list[jax.Device]:
    for variable, value in _WITHOUT_TPU.items():
        os.environ.setdefault(variable, value)
    alone = {"chips_per_host_bounds": (1, 1, 1)} if name.endswith(":1x1") else {}  # else four
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=name, **alone)
        return list(found.devices)
    except jax.errors.JaxRuntimeError as e:
        told = str(e).split(": ", 1)[-1].splitlines()[0]
        raise errors.InputError(
            f"--topology={name}: {told}; want a slice such as v5e:8x8, v5p:4x4x4 or v6e:4x4"
        ) from e
    except (RuntimeError, ImportError) as e:
        raise errors.InputError(
            f"--topology={name} needs the TPU compiler, but libtpu is not installed; "
            "pip install 'jax[tpu]'; --plan can also use --devices"
        ) from e


def _gpus(name: str, chip: chips.Chip) -> list[jax.Device]:
    sizes = re.fullmatch(r"\w+:([1-9]\d*)x([1-9]\d*)", name)
    if not sizes:
        raise errors.InputError(
            f"--topology={name}: want machines x GPUs per machine, such as H200:4x8"
        )
    machines, each = map(int, sizes.groups())
    if each > chip.joined:
        raise errors.InputError(
            f"--topology={name}: a machine has at most "
            f"{chip.joined} GPUs; machines come first, as in H200:4x8"
        )
    try:
        described = topologies.get_topology_desc(
            platform="cuda", topology=f"{machines}x1x{each}", target_config=chip.described
        )
    except jax.errors.JaxRuntimeError as e:
        raise errors.InputError(
            f"--topology={name}: the GPU compiler does not accept its description in chips.py "
            f"({e}); pip install -c constraints.txt 'jax[cuda13]'; --plan can also use --devices"
        ) from e
    except NotImplementedError as e:
        raise errors.InputError(
            f"--topology={name} needs the GPU compiler, but JAX has none for CUDA here; "
            "pip install 'jax[cuda13]'; --plan can also use --devices"
        ) from e
    return list(described.devices)
