"""Memory, peak and links of the accelerators to plan for, as published by their vendors."""

import dataclasses

from lidit_jax import errors

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator. memory: bytes for programs; flops: peak bf16 FLOP/s of dense products.

    link: bytes/s received from its neighbours; joined: accelerators per machine, 0 = links connect
    all of them; far: bytes/s received from other machines, over a link of its own. described: a
    GPU's description for XLA's compiler where none is present ("" = a TPU, which libtpu describes).
    unset: bytes for programs where XLA_PYTHON_CLIENT_MEM_FRACTION is not set, 0 = `memory`.
    machine: accelerators of the largest machine.
    """

    memory: int
    flops: float
    link: float
    far: float = 0.0
    joined: int = 0
    described: str = ""
    unset: int = 0
    machine: int = 8


# The rest of a GPU's memory goes to its driver, libraries and fragmentation. XLA can be given this
# share with XLA_PYTHON_CLIENT_MEM_FRACTION=0.92.
_GPU_SHARE = 0.92
_UNSET_SHARE = 0.75  # JAX's default
_HOPPER = """
platform_name: "CUDA"
device_description_str: "NVIDIA {name}"
dnn_version_info {{ major: 9 minor: 12 }}
runtime_version {{ major: 13 }}
gpu_device_info {{
  cuda_compute_capability {{ major: 9 }}
  device_memory_size: {memory:.0f}
  memory_bandwidth: {bandwidth:.0f}
  l2_cache_size: 52428800
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
}}
"""


def _hopper(name: str, memory: float, bandwidth: float) -> Chip:
    """Returns an SXM GPU: NVLink, 900 GB/s both ways among 8; 400 Gbit/s each between machines."""
    described = _HOPPER.format(name=name, memory=memory, bandwidth=bandwidth)
    return Chip(
        int(_GPU_SHARE * memory),
        989e12,
        450e9,
        far=50e9,
        joined=8,
        described=described,
        unset=int(_UNSET_SHARE * memory),
    )


# TPUs: cloud.google.com/tpu/docs/{v5e,v5p,v6e}: 16, 95 and 32 GB of HBM. Programs get 15.75, 95.73
# and 31.24 GiB, according to the compiler (libtpu 0.0.42). Links: half of the 400, 1,200 and 800
# GB/s for both directions. Links between slices are slower; they are not modelled here.
# GPUs: NVIDIA's data sheets of H100 SXM (3.35 TB/s, 1,979 TFLOP/s with sparsity: 989 without) and
# H200 SXM (4.8 TB/s); memory as CUDA reports it, of the nominal 80 and 141 GB (H100s differ by 0.1
# GiB; this is the least); cache and clock from the H100's white paper, limits of compute capability
# 9.0 from the CUDA programming guide; versions as in jax[cuda13].
CHIPS = {
    "v5e": Chip(int(15.75 * GIB), 197e12, 200e9),
    "v5p": Chip(int(95.73 * GIB), 459e12, 600e9, machine=4),
    "v6e": Chip(int(31.24 * GIB), 918e12, 400e9),
    "H100": _hopper("H100", 79.10 * GIB, 3.35e12),
    "H200": _hopper("H200", 139.81 * GIB, 4.8e12),
}


def of_topology(topology: str) -> str:
    """Returns the chip's name in a topology such as "v5e:8x8" or "H200:4x8".

    Raises InputError for an unknown chip.
    """
    name = topology.split(":")[0]
    if name not in CHIPS:
        raise errors.unknown_name("chip of --topology", name, CHIPS)
    return name
