"""The least time that a step can take on a chip: its products at the peak, its traffic beside them."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lidit_jax.benchmarking import flops
from lidit_jax.benchmarking.chips import Chip
from lidit_jax.benchmarking.program import Setting, Step

_GATHERS = (
    2  # of every parameter for a micro-batch: before its forward and before its backward pass
)


@dataclasses.dataclass(frozen=True)
class LeastTime:
    """Seconds of a step: of products, those computed twice included; of what a device receives."""

    products: float
    traffic: float

    @property
    def seconds(self) -> float:
        """The longer of the two, since they can go on at the same time."""
        return max(self.products, self.traffic)


def of(step: Step, setting: Setting, chip: Chip, products: list[flops.Product]) -> LeastTime:
    """Returns the least time of a step. products: of a picture's forward pass, by `flops.forward`."""
    each = flops.training(products) + flops.recomputed(products, setting.remat)
    share = step.config.train.batch_size / step.mesh.size
    machines = len({device.process_index for device in step.mesh.devices.flat})
    network = chip.network(step.mesh.size, machines)
    return LeastTime(each * share / chip.flops, traffic(step, setting) / network)


def traffic(step: Step, setting: Setting) -> float:
    """Returns the bytes that a device receives in a step, by formula, in the compute dtype.

    For each micro-batch parameters are gathered, and gradients scattered, over fsdp; then gradients are
    summed among replicas, each receiving them twice (a ring's reduction). What travels over tensor
    with activations is not counted.
    """
    sizes = step.mesh.shape
    size = jnp.dtype(step.config.model.dtype).itemsize
    whole = size * sum(math.prod(p.shape) for p in jax.tree.leaves(step.like.params))
    held = whole / sizes["tensor"]
    over_fsdp = (_GATHERS + 1) * held * (1 - 1 / sizes["fsdp"])
    over_replicas = 2 * held / sizes["fsdp"] * (1 - 1 / sizes["replica"])
    return setting.accumulate * (over_fsdp + over_replicas)
