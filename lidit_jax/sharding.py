"""The mesh, and the one table from logical axes to mesh axes.

A mesh has the axes ("replica", "fsdp", "tensor"): the batch is sharded over replica x fsdp,
parameters over fsdp and tensor, and replicas hold copies. Models name logical axes on their
parameters; nothing else in the project says where an array lives.
"""

import itertools
import math

import jax
import numpy as np
from flax import nnx
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from lidit_jax import errors

MESH_AXES = ("replica", "fsdp", "tensor")

# Logical axis -> mesh axis. A dimension with no axis, or mapped to None, is not sharded.
LOGICAL_TO_MESH = {
    "embed": "fsdp",  # the model width; of a D x D matrix, its input side
    "heads": "tensor",
    "parts": None,  # queries, keys and values from one matrix
    "mlp": "tensor",  # the hidden width of an FFN
    "embed_out": None,  # the model width on the output side of a D x D matrix
    "modulation": "tensor",  # nine vectors of the width per block: a third of all parameters
    "features": None,  # an LLM's width
    "layers": None,
}
COPIED = 4 * 2**30  # leaves room for a batch's activations on a device of 16 GB
BATCH = PartitionSpec(("replica", "fsdp"))


def make_mesh(sizes: tuple[int, int, int], devices=None) -> Mesh:
    """Returns a mesh of (replica, fsdp, tensor) devices.

    One size may be -1: all remaining devices. Raises InputError if the product is not the number
    of devices, or if the shape does not fit the TPUs' links.
    """
    devices = jax.devices() if devices is None else devices
    if len(sizes) != 3 or sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise errors.InputError(
            f"mesh {sizes}: want three positive sizes {MESH_AXES}, at most one of them -1"
        )
    known = math.prod(s for s in sizes if s != -1)
    left = max(len(devices) // known, 1)
    sizes = tuple(left if s == -1 else s for s in sizes)
    if math.prod(sizes) != len(devices):
        raise errors.InputError(
            f"mesh {dict(zip(MESH_AXES, sizes))} needs {math.prod(sizes)} devices, but there are "
            f"{len(devices)}; use (1, -1, 1) to shard over all of them"
        )
    auto = (AxisType.Auto,) * len(MESH_AXES)
    try:
        slices = (
            len({getattr(d, "slice_index", 0) for d in devices})
            if devices[0].platform == "tpu"
            else 1
        )
        if slices > 1:
            return Mesh(_over_slices(sizes, slices, devices), MESH_AXES, axis_types=auto)
        return jax.make_mesh(sizes, MESH_AXES, axis_types=auto, devices=devices)
    except NotImplementedError as e:  # on TPUs, whose links form a torus
        raise errors.InputError(
            f"mesh {dict(zip(MESH_AXES, sizes))} does not fit these TPUs' torus; each size must be "
            "the product of some of its sides, such as (4, 16, 1) on 4x4x4"
        ) from e


def _over_slices(sizes: tuple[int, int, int], slices: int, devices) -> np.ndarray:
    """Returns the devices of several TPU slices in mesh order, with replicas in different slices.

    The network between slices is slower by orders of magnitude; replicas use it least.
    """
    replica, fsdp, tensor = sizes
    if replica % slices:
        raise errors.InputError(
            f"mesh {dict(zip(MESH_AXES, sizes))} over {slices} TPU slices: "
            f"replica must be a multiple of {slices}, so that parameters "
            f"are gathered within a slice; use ({slices}, -1, {tensor})"
        )
    within, between = (replica // slices, fsdp, tensor), (slices, 1, 1)
    return mesh_utils.create_hybrid_device_mesh(within, between, devices)


def one_device() -> Mesh:
    """Returns a mesh of this process's first device."""
    return make_mesh((1, 1, 1), jax.local_devices()[:1])


def copies() -> Mesh:
    """Returns the mesh of this process' devices, each with its own copy of the weights."""
    return make_mesh((-1, 1, 1), jax.local_devices())


def drawing_mesh(weights: int, devices=None) -> Mesh:
    """Returns a mesh for sampling from a model of `weights` bytes, of this process's devices.

    devices: to use instead of these.

    Up to COPIED bytes every device has a copy, and none waits for another. A larger model is
    sharded over all of them, as in training, and each block is gathered when it runs, so that any
    model that could be trained here can be sampled from.
    """
    sizes = (-1, 1, 1) if weights <= COPIED else (1, -1, 1)
    return make_mesh(sizes, devices or jax.local_devices())


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first dimension sharded over replica x fsdp."""
    return NamedSharding(mesh, BATCH)


def rows_here(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns which rows of a global batch this process's devices hold, in order.

    Processes along the tensor axis hold the same rows; a process's rows need not be contiguous.
    """
    held = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    return np.unique(np.concatenate([np.arange(batch_size)[rows] for rows in held.values()]))


def holders(mesh: Mesh, batch_size: int) -> np.ndarray:
    """Returns how many processes hold each row of a global batch on their devices: int [B]."""
    where = batch_sharding(mesh).devices_indices_map((batch_size,))
    held = {
        (d.process_index, row) for d, rows in where.items() for row in range(batch_size)[rows[0]]
    }
    return np.bincount([row for _, row in held], minlength=batch_size)


def split_batch(x: jax.Array) -> jax.Array:
    """Constrains an activation to be sharded by samples, like the batch.

    Parameters share the axis "fsdp" with the batch; without this the compiler may gather
    activations where it should gather parameters. Does nothing if no mesh is set, or if the rows
    do not divide over it: one row of the empty prompt serves a whole batch.
    """
    if jax.sharding.get_abstract_mesh().empty or not rows_divide(x.shape[0]):
        return x
    return jax.lax.with_sharding_constraint(x, BATCH)


def rows_divide(rows: int) -> bool:
    """Returns whether this many rows divide over the current mesh; True if none is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return mesh.empty or rows % batch_parts(mesh) == 0


def by_rows_and_heads(kernel):
    """Returns `kernel` wrapped so that each device runs it on the rows and heads it holds.

    For kernels that the compiler cannot split: `kernel(q, k, v, by_row)`, with q, k and v of shape
    [B, N, ...] and by_row of shape [B, ...] or None.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return kernel
    held = PartitionSpec(BATCH[0], LOGICAL_TO_MESH["heads"])
    return jax.shard_map(
        kernel, in_specs=(held, held, held, BATCH), out_specs=held, check_vma=False
    )


def platform(mesh: AbstractMesh | None = None) -> str:
    """Returns "cpu", "gpu" or "tpu": of the mesh, else of the current one, else JAX's default."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    return jax.default_backend() if mesh.empty else mesh.abstract_device.platform


def batch_parts(mesh: Mesh | AbstractMesh) -> int:
    """Returns how many shards a batch is split into."""
    return mesh.shape["replica"] * mesh.shape["fsdp"]


def rounded_up(mesh: Mesh, rows: int) -> int:
    """Returns `rows` rounded up to the next number that divides over the mesh."""
    return -(-rows // batch_parts(mesh)) * batch_parts(mesh)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1):
    """Raises InputError, with sizes that work, unless the micro-batches divide over the mesh."""
    parts = batch_parts(mesh) * accumulate
    if batch_size % parts:
        near = sorted({max(batch_size // parts, 1) * parts, (batch_size // parts + 1) * parts})
        steps = f" x {accumulate} accumulation steps" if accumulate > 1 else ""
        raise errors.InputError(
            f"batch_size {batch_size} does not divide over {parts // accumulate} data-parallel "
            f"devices{steps}; use {' or '.join(map(str, near))}"
        )


def param_shardings(mesh: Mesh, params: nnx.State) -> nnx.State:
    """Returns the `NamedSharding` of every parameter, from its logical axes and LOGICAL_TO_MESH.

    Raises InputError if a dimension does not divide, naming the parameter and a mesh that works.
    """

    def shard(path, param):
        spec = _spec(path, param)
        for size, mesh_axis in zip(param.shape, spec):
            if mesh_axis and size % mesh.shape[mesh_axis]:
                raise errors.InputError(
                    f"parameter {'.'.join(map(str, path))} of shape {param.shape} does "
                    f"not divide over {mesh.shape[mesh_axis]} devices of mesh axis "
                    f"{mesh_axis!r} (its side of {size}); {_suggestion(mesh, params)}"
                )
        return param.replace(NamedSharding(mesh, PartitionSpec(*spec)))

    flat = nnx.to_flat_state(params)
    return nnx.from_flat_state([(path, shard(path, param)) for path, param in flat])


def _spec(path, param) -> list[str | None]:
    """Returns the mesh axis of each dimension. Raises ValueError if its logical one is unknown."""
    axes = param.get_metadata().get("axes")
    known = {None, *LOGICAL_TO_MESH}
    if axes is None or len(axes) != len(param.shape) or not set(axes) <= known:
        raise ValueError(
            f"parameter {'.'.join(map(str, path))} of shape {param.shape} names the logical axes "
            f"{axes}; want one of {', '.join(LOGICAL_TO_MESH)} or None for each dimension, as in "
            f"models/layers.py"
        )
    return [LOGICAL_TO_MESH[axis] if axis else None for axis in axes]


def _suggestion(mesh, params):
    """Suggests the mesh nearest to the requested one, of equal size, that fits all parameters."""
    dims = {
        (size, mesh_axis)
        for path, param in nnx.to_flat_state(params)
        for size, mesh_axis in zip(param.shape, _spec(path, param))
        if mesh_axis
    }
    count, asked = mesh.size, tuple(mesh.shape[a] for a in MESH_AXES)
    divisors = [n for n in range(1, count + 1) if count % n == 0]
    fits = []
    for fsdp, tensor in itertools.product(divisors, divisors):
        if count % (fsdp * tensor) == 0:
            sizes = {"fsdp": fsdp, "tensor": tensor}
            if all(size % sizes[axis] == 0 for size, axis in dims):
                fits.append((count // (fsdp * tensor), fsdp, tensor))
    best = min(fits, key=lambda m: sum(abs(math.log(a / b)) for a, b in zip(m, asked)))
    return f"a mesh of {best} {MESH_AXES} would work"
