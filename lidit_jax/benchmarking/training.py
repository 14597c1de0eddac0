"""How fast the train step is, compared with the device's matrix products and a peer, in one run."""

import dataclasses
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from lidit_jax import sharding
from lidit_jax.batch import fake
from lidit_jax.benchmarking import flops
from lidit_jax.benchmarking.peer import Peer
from lidit_jax.benchmarking.timing import Seconds, take
from lidit_jax.training import optim, state, step
from lidit_jax.training.config import Config
from lidit_jax.training.feed import to_devices
from lidit_jax.training.tasks.diffusion import DiffusionTask


@dataclasses.dataclass(frozen=True)
class TrainingSpeed:
    """Measurements of full steps over all devices.

    flops: of a step by formula, without recomputation; xla_flops: of the compiled program on one
    device, where loops count once (None: the backend does not report it).
    product, product_flops: a large matrix product in the compute dtype on every device, run at the
    same time and counted together: devices that share a processor's cores share its peak.
    memory: peak bytes in use on one device; on a CPU, which does not report it, the program's own.
    peer_step: steps of `peer`, taken in turn with ours.
    """

    device: str
    mesh: tuple[int, ...]
    dtype: str
    parameters: int
    images: int
    compile_seconds: float
    step: Seconds
    flops: int
    xla_flops: float | None
    product: Seconds
    product_flops: int
    memory: int
    peer: Peer | None
    peer_step: Seconds | None

    @property
    def peak(self) -> float:
        """Returns the FLOP/s of the products, summed over all devices."""
        return self.product_flops / self.product.median

    @property
    def share(self) -> float:
        """Returns the share of that peak that the step's own FLOPs reach."""
        return self.flops / self.step.median / self.peak

    @property
    def ratio(self) -> float | None:
        """Returns our images/s over the peer's."""
        return self.peer_step.median / self.step.median if self.peer_step else None

    def as_json(self) -> dict:
        """Returns the measured and derived numbers as JSON values."""
        told = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in ("step", "product", "peer_step"):
            told[name] = dataclasses.asdict(told[name]) if told[name] else None
        if self.peer:
            told["peer"] = {k: getattr(self.peer, k) for k in ("name", "parameters", "flops")}
        return told | {"peak": self.peak, "share_of_peak": self.share, "ratio_to_peer": self.ratio}

    def table(self) -> str:
        """Returns the results as a few lines of text."""
        counted = f", XLA counts {_giga(self.xla_flops)}" if self.xla_flops else ""
        lines = [
            f"{self.parameters:,} parameters in {self.dtype}, "
            f"mesh {self.mesh} on {self.device}, {self.images} images a step",
            f"compiled in   {self.compile_seconds:.1f} s",
            f"step          {self.step}, {self.images / self.step.median:.2f} images/s",
            f"model         {_giga(self.flops)} a step{counted}; "
            f"{_giga(self.flops / self.step.median)}/s",
            f"product       {_giga(self.peak)}/s, "
            "summed over all devices at the same time, between steps",
            f"share         {self.share:.1%} of the products' peak",
            f"memory        {self.memory / 2**30:.2f} GiB a device",
        ]
        if self.peer:
            lines += [
                f"peer          {self.peer.name}: "
                f"{self.peer.parameters:,} parameters, {_giga(self.peer.flops)} a step",
                f"its step      {self.peer_step}, "
                f"{self.images / self.peer_step.median:.2f} images/s",
                f"ratio         {self.ratio:.2f} x the peer's images/s",
            ]
        return "\n".join(lines)


def _giga(flops: float) -> str:
    return f"{flops / 1e9:,.1f} GFLOP"


def measure(
    config: Config, task: DiffusionTask, mesh: Mesh, peer: Peer | None = None, rounds: int = 10
) -> TrainingSpeed:
    """Measures a config's real step on a mesh and a random batch, in turn with products and peer.

    Raises InputError if the model or the batch does not divide over the mesh, or as
    `flops.forward`.
    """
    sharding.check_batch(mesh, config.train.batch_size, config.train.accumulate)
    products = flops.forward(task)
    optimizer = optim.make_optimizer(config.optim, config.train.steps)
    graphdef, like = state.abstract(task, optimizer, mesh)
    update = step.make_step(task, graphdef, optimizer, config, mesh, like)
    start = time.perf_counter()
    compiled = update.lower(like, task.batch_spec()).compile()
    compile_seconds = time.perf_counter() - start
    batch = to_devices(fake(task.shape), mesh)
    held = {"state": state.make_initial(task, optimizer, config.seed, like)({})}

    def train():
        held["state"], metrics = compiled(held["state"], batch)
        return metrics

    jax.block_until_ready(train())
    memory = _memory(compiled, mesh)  # before anything else is on the devices
    side = 2048 if mesh.devices.flat[0].platform == "cpu" else 8192
    parts = {"step": train, "product": _product(side, config.model.dtype, mesh)}
    if peer:
        parts["peer"] = peer.step
    taken = take(parts, rounds)
    return TrainingSpeed(
        device=mesh.devices.flat[0].device_kind,
        mesh=tuple(mesh.shape.values()),
        dtype=config.model.dtype,
        parameters=sum(a.size for a in jax.tree.leaves(like.params)),
        images=config.train.batch_size,
        compile_seconds=compile_seconds,
        step=taken["step"],
        flops=config.train.batch_size * flops.training(products),
        xla_flops=(compiled.cost_analysis() or {}).get("flops"),
        product=taken["product"],
        product_flops=mesh.size * 2 * side**3,
        memory=memory,
        peer=peer,
        peer_step=taken.get("peer"),
    )


def _product(side: int, dtype: str, mesh: Mesh):
    """Returns a function that multiplies two random matrices on every device of the mesh.

    Each device has two of its own; one program multiplies them all, without communication. The
    function returns [devices * side, side], the products stacked.
    """
    each = PartitionSpec(mesh.axis_names)
    shape, placed = (mesh.size * side, side), NamedSharding(mesh, each)
    draw = jax.jit(
        lambda key: jax.random.normal(key, shape, jnp.dtype(dtype)), out_shardings=placed
    )
    a, b = (draw(key) for key in jax.random.split(jax.random.key(0)))
    multiply = jax.jit(jax.shard_map(jnp.matmul, mesh=mesh, in_specs=each, out_specs=each))
    return lambda: multiply(a, b)


def _memory(compiled, mesh: Mesh) -> int:
    stats = mesh.devices.flat[0].memory_stats()
    if stats and "peak_bytes_in_use" in stats:
        return stats["peak_bytes_in_use"]
    program = compiled.memory_analysis()
    return program.argument_size_in_bytes + program.temp_size_in_bytes
