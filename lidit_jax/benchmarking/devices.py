"""Devices to compile for that need not be here: virtual CPU devices, or TPUs and GPUs by their names."""

import os
import re

import jax
from jax.experimental import topologies

from lidit_jax import errors
from lidit_jax.benchmarking import chips

# What compilers are told. Triton's products are tuned by running them; untuned, without a GPU, some do not
# compile.
OPTIONS = {"gpu": {"xla_gpu_enable_triton_gemm": False}}

# What libtpu otherwise asks a cloud's metadata server, at length, and a lock that guards TPUs that
# are not there; none of it changes the program that is compiled.
_WITHOUT_TPU = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def use_cpu():
    """Keeps JAX from taking the accelerators of this machine: nothing is to run on them."""
    jax.config.update("jax_platforms", "cpu")


def virtual(count: int) -> list[jax.Device]:
    """Returns `count` virtual devices of the CPU. Before JAX has started there may be any number.

    Raises InputError if JAX has started with fewer.
    """
    errors.check_range("--devices", count, 1)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:
        pass  # JAX has started, or XLA_FLAGS says how many: it has what it has
    devices = jax.devices("cpu")
    if len(devices) < count:
        raise errors.InputError(
            f"--devices={count}, but JAX has {len(devices)} here; leave out of XLA_FLAGS "
            f"--xla_force_host_platform_device_count, or set it to {count}"
        )
    return devices[:count]


def of_topology(name: str) -> list[jax.Device]:
    """Returns the devices of "v5e:8x8", a slice of TPUs, or "H200:4x8", four machines of eight GPUs each.

    None of them is here: libtpu describes TPUs, `chips` GPUs. Raises InputError for a name that stands for
    nothing, or where their compiler is not installed.
    """
    chip = chips.CHIPS[chips.of_topology(name)]
    return _gpus(name, chip) if chip.described else _tpus(name)


def _tpus(name: str) -> list[jax.Device]:
    for variable, value in _WITHOUT_TPU.items():
        os.environ.setdefault(variable, value)
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=name).devices)
    except jax.errors.JaxRuntimeError as e:
        told = str(e).split(": ", 1)[-1].splitlines()[0]
        raise errors.InputError(
            f"--topology={name}: {told}; want a slice such as v5e:8x8, v5p:4x4x4 or v6e:4x4"
        ) from e
    except (RuntimeError, ImportError) as e:
        raise errors.InputError(
            f"--topology={name} wants the TPU compiler, but libtpu is not installed; "
            "pip install 'jax[tpu]', or give --devices"
        ) from e


def _gpus(name: str, chip: chips.Chip) -> list[jax.Device]:
    sizes = re.fullmatch(r"\w+:([1-9]\d*)x([1-9]\d*)", name)
    if not sizes:
        raise errors.InputError(
            f"--topology={name}: want machines and GPUs of each, such as H200:4x8"
        )
    machines, each = map(int, sizes.groups())
    if each > chip.joined:
        raise errors.InputError(
            f"--topology={name}: a machine has {chip.joined} GPUs at most; give machines first, such as H200:4x8"
        )
    try:
        described = topologies.get_topology_desc(
            platform="cuda", topology=f"{machines}x1x{each}", target_config=chip.described
        )
    except jax.errors.JaxRuntimeError as e:
        raise errors.InputError(
            f"--topology={name}: the GPU compiler does not know its description in chips.py ({e}); "
            "pip install -c constraints.txt 'jax[cuda13]', or give --devices"
        ) from e
    except NotImplementedError as e:
        raise errors.InputError(
            f"--topology={name} wants the GPU compiler, but JAX has none for CUDA here; "
            "pip install 'jax[cuda13]', or give --devices"
        ) from e
    return list(described.devices)
