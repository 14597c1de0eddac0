"""Compares attention kernels with jax.nn.dot_product_attention, forward and backward.

python -m benchmarks.attention                          times on this machine's first device
python -m benchmarks.attention --topology=v5p:2x2x1     the TPU compiler's report; no TPU is needed
python -m benchmarks.attention --topology=H200:1x1      the GPU compiler's report; no GPU is needed

Shapes are the network's, on one device: pictures, heads, image tokens, tokens attended to, head
width. Times are medians of runs in turn; ratios are speeds relative to JAX's own attention
(`implementation` not given), higher is better. Without devices: memory for temporaries and, for
TPUs, bytes moved to and from memory, according to the compiler.
"""

import argparse

import jax
import jax.numpy as jnp

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import devices
from lidit_jax.benchmarking.timing import take
from lidit_jax.models import mixing

SHAPES = {
    "1B, 256 px, self": (16, 16, 256, 256, 72),
    "1B, 256 px, text": (16, 16, 256, 256, 72),
    "10B, 512 px, self": (4, 44, 1024, 1024, 64),
    "10B, 512 px, text": (4, 44, 1024, 256, 64),
    "10B, 1024 px, self": (1, 44, 4096, 4096, 64),
    "10B, 1024 px, text": (1, 44, 4096, 256, 64),
}
_LOGITS = 2**28  # most that a CPU is timed with: 1 GB in f32, several times


def jaxs_own(q_BxNxTxK, k_BxNxSxK, v_BxNxSxK, mask_Bx1xS):
    tokens_first = (a.swapaxes(1, 2) for a in (q_BxNxTxK, k_BxNxSxK, v_BxNxSxK))
    mask = None if mask_Bx1xS is None else mask_Bx1xS[:, None]
    return jax.nn.dot_product_attention(*tokens_first, mask=mask, scale=1.0).swapaxes(1, 2)


def both_ways(kernel):
    """Returns a function from q, k, v, mask and output gradient to output and three gradients."""

    def run(q, k, v, mask, g):
        out, back = jax.vjp(lambda *a: kernel(*a, mask), q, k, v)
        return out, back(g)

    return run


def arguments(shape, dtype, text: bool):
    """Returns the shapes of q, k, v, the mask (None for image tokens) and the output's gradient."""
    B, N, T, S, K = shape
    q, k = (jax.ShapeDtypeStruct((B, N, n, K), dtype) for n in (T, S))
    return q, k, k, jax.ShapeDtypeStruct((B, 1, S), bool) if text else None, q


def compiled_for(topology: str):
    """Prints the compiler's report about each kernel, for one device of a topology."""
    devices.use_cpu()
    device = devices.of_topology(topology)[0]
    mesh = sharding.make_mesh((1, 1, 1), [device])
    here = sharding.replicated(mesh)
    options = devices.OPTIONS.get(device.platform)
    own = mixing.cudnn if device.platform == "gpu" else mixing.splash
    print(f"{topology}: MB for temporaries, and GB moved where the compiler says")
    for name, shape in SHAPES.items():
        given = arguments(shape, jnp.bfloat16, "text" in name)
        placed = jax.tree.map(
            lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=here), given
        )
        cells = []
        for kernel in (jaxs_own, mixing.plain, own):
            program = jax.jit(both_ways(kernel)).lower(*placed).compile(options)
            temporaries = program.memory_analysis().temp_size_in_bytes / 1e6
            counted = program.cost_analysis()  # empty with the GPU compiler
            moved = f"{counted['bytes accessed'] / 1e9:6.2f}" if counted else ""
            cells.append(f"{kernel.__name__} {temporaries:8,.0f} {moved}")
        print(f"  {name:20s}" + "   ".join(cells))


def filled(a):
    """Returns random numbers of the given shape, or for a mask all True."""
    if a.dtype == bool:
        return jnp.ones(a.shape, a.dtype)
    return jax.random.normal(jax.random.key(0), a.shape, a.dtype)


def timed(rounds: int):
    """Prints each kernel's time on the first device, and its speed relative to JAX's own."""
    device = jax.devices()[0]
    kernels = {"jax": jaxs_own, "plain": mixing.plain}
    if mixing.has_cudnn():
        kernels["cudnn"] = mixing.cudnn
    if device.platform == "tpu":
        kernels["splash"] = mixing.splash
    dtype = jnp.float32 if device.platform == "cpu" else jnp.bfloat16
    print(
        f"{device.device_kind}, {jnp.dtype(dtype).name}: ms forward and backward, "
        "speed relative to jax"
    )
    for name, shape in SHAPES.items():
        B, N, T, S, _ = shape
        if device.platform == "cpu" and B * N * T * S > _LOGITS:
            continue
        given = jax.tree.map(filled, arguments(shape, dtype, "text" in name))
        programs = {k: jax.jit(both_ways(kernel)) for k, kernel in kernels.items()}
        took = take({k: lambda f=f, a=given: f(*a) for k, f in programs.items()}, rounds)
        cells = [
            f"{k} {1e3 * t.median:8.2f} {took['jax'].median / t.median:5.2f}x"
            for k, t in took.items()
        ]
        print(f"  {name:20s}" + "   ".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--topology", help="devices to compile for, such as v5p:2x2x1 or H200:1x1")
    parser.add_argument("--rounds", type=int, default=10, help="how often each kernel is timed")
    args = parser.parse_args()
    if args.topology:
        try:
            compiled_for(args.topology)
        except errors.InputError as e:
            parser.error(str(e))
    else:
        timed(args.rounds)


if __name__ == "__main__":
    main()
