"""The least time that a step can take on a chip: its products at peak, its traffic in parallel."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from lidit_jax.benchmarking import flops
from lidit_jax.benchmarking.chips import Chip
from lidit_jax.benchmarking.program import Setting, Step

_GATHERS = (
    2  # of every parameter for a micro-batch: before its forward and before its backward pass
)


@dataclasses.dataclass(frozen=True)
class LeastTime:
    """Seconds of a step: of its products, with recomputation, and of what a device receives."""

    products: float
    traffic: float

    @property
    def seconds(self) -> float:
        """The longer of the two, since they can overlap."""
        return max(self.products, self.traffic)


def of(step: Step, setting: Setting, chip: Chip, products: list[flops.Product]) -> LeastTime:
    """Returns the least time of a step. products: of a picture's forward pass (`flops.forward`)."""
    each = flops.training(products) + flops.recomputed(products, setting.remat)
    share = step.config.train.batch_size / step.mesh.size
    return LeastTime(each * share / chip.flops, _seconds_of_traffic(step, setting, chip))


def collected(step: Step, setting: Setting) -> dict[str, float]:
    """Returns, per mesh axis, the bytes gathered or scattered over it in a step, unsharded.

    By formula, in the compute dtype: for each micro-batch, parameters are gathered and gradients
    scattered over fsdp; then gradients are summed over replicas, each receiving them twice (a ring
    all-reduce). Traffic of activations over tensor is not counted.
    """
    sizes = step.mesh.shape
    size = jnp.dtype(step.config.model.dtype).itemsize
    whole = size * sum(math.prod(p.shape) for p in jax.tree.leaves(step.like.params))
    held = setting.accumulate * whole / sizes["tensor"]
    return {"fsdp": (_GATHERS + 1) * held, "replica": 2 * held / sizes["fsdp"]}


def _seconds_of_traffic(step: Step, setting: Setting, chip: Chip) -> float:
    """Returns the longer of the links' times within and between machines, which work in parallel.

    Data from other machines reaches a machine once, over the links of all of its devices that
    collect the same data, and is passed on within the machine.
    """
    within, between = 0.0, 0.0
    for axis, size in collected(step, setting).items():
        devices, near = step.mesh.shape[axis], _near(step.mesh, axis, chip)
        from_others = size * (1 - near / devices) / near
        between += from_others
        within += size * (1 - 1 / devices) - from_others
    return max(within / chip.link, between / chip.far if between else 0.0)


def _near(mesh: Mesh, axis: str, chip: Chip) -> int:
    """Returns how many devices of a group over an axis share a machine: the fewest in any group.

    Virtual devices are assigned to machines of the chip's size, in order.
    """
    if not chip.joined:
        return mesh.shape[axis]
    machines = np.vectorize(lambda device: device.process_index)(mesh.devices)
    if not machines.any():
        machines = np.arange(mesh.size).reshape(machines.shape) // chip.joined
    groups = np.moveaxis(machines, mesh.axis_names.index(axis), -1).reshape(-1, mesh.shape[axis])
    return min(int(np.unique(group, return_counts=True)[1].min()) for group in groups)
