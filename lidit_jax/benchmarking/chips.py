"""Memory, peak and links of the accelerators that a run may be planned for, as their vendors publish them."""

import dataclasses

from lidit_jax import errors

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One accelerator. memory: bytes for programs; flops: peak bf16 FLOP/s of dense products.

    link: bytes/s that it receives from its neighbours; far, joined: the same where more than so many
    accelerators compute together. topology: what its slices are called when compiling for TPUs that
    are not here ("" = no TPU).
    """

    memory: int
    flops: float
    link: float
    topology: str = ""
    far: float = 0.0
    joined: int = 0

    def network(self, devices: int) -> float:
        """Returns the bytes/s that each of so many accelerators can receive."""
        return self.far if self.joined and devices > self.joined else self.link


# What a GPU keeps for its driver, for libraries and to fragmentation; XLA may be given the rest with
# XLA_PYTHON_CLIENT_MEM_FRACTION=0.92 (its default is 0.75).
_GPU_SHARE = 0.92

# TPUs: cloud.google.com/tpu/docs/{v5e,v5p,v6e}: 16, 95 and 32 GB of HBM. Less than that is a
# program's: 15.75, 95.73 and 31.24 GiB are what the compiler (libtpu 0.0.52) says that it has. Links:
# half of the 400, 1,200 and 800 GB/s of both directions. Between slices it is less: not foretold here.
# GPUs: NVIDIA's data sheets of H100 SXM (80 GB, 1,979 TFLOP/s with sparsity: 989 without) and H200 SXM
# (141 GB); NVLink 900 GB/s in both directions among 8, and 400 Gbit/s for each between machines.
_NVIDIA = dict(link=450e9, far=50e9, joined=8)
CHIPS = {
    "v5e": Chip(int(15.75 * GIB), 197e12, 200e9, "v5e"),
    "v5p": Chip(int(95.73 * GIB), 459e12, 600e9, "v5p"),
    "v6e": Chip(int(31.24 * GIB), 918e12, 400e9, "v6e"),
    "H100": Chip(int(_GPU_SHARE * 80e9), 989e12, **_NVIDIA),
    "H200": Chip(int(_GPU_SHARE * 141e9), 989e12, **_NVIDIA),
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
