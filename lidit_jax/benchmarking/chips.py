"""Memory and peak of the accelerators that a run may be planned for, as their vendors publish them."""

import dataclasses

from lidit_jax import errors

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator. memory: bytes for programs; flops: peak bf16 FLOP/s of dense products.

    topology: what its slices are called when compiling for TPUs that are not here ("" = no TPU).
    """

    memory: int
    flops: float
    topology: str = ""


# What a GPU keeps for its driver, for libraries and to fragmentation; XLA may be given the rest with
# XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 (its default is 0.75).
_GPU_SHARE = 0.92

# TPUs: cloud.google.com/tpu/docs/{v5e,v5p,v6e}: 16, 95 and 32 GB of HBM. Less than that is a
# program's: 15.75, 95.73 and 31.24 GiB are what the compiler (libtpu 0.0.52) says that it has.
# GPUs: NVIDIA's data sheets of H100 SXM (80 GB, 1,979 TFLOP/s with sparsity: 989 without) and H200 SXM (141 GB).
CHIPS = {
    "v5e": Chip(int(15.75 * GIB), 197e12, "v5e"),
    "v5p": Chip(int(95.73 * GIB), 459e12, "v5p"),
    "v6e": Chip(int(31.24 * GIB), 918e12, "v6e"),
    "H100": Chip(int(_GPU_SHARE * 80e9), 989e12),
    "H200": Chip(int(_GPU_SHARE * 141e9), 989e12),
}


def of_topology(topology: str) -> str:
    """Returns the chip's name in a topology such as "v5e:8x8".

    Raises InputError for one of no chip here.
    """
    name = topology.split(":")[0]
    known = [n for n, chip in CHIPS.items() if chip.topology]
    if name not in known:
        raise errors.unknown_name("chip of --topology", name, known)
    return name
