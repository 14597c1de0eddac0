"""What sampling needs: its real program, compiled for devices that need not be present."""

import dataclasses

import jax
import jax.numpy as jnp

from lidit_jax import errors, sharding
from lidit_jax.batch import spec
from lidit_jax.benchmarking import chips, devices
from lidit_jax.benchmarking.program import Program, TooLarge, compiled
from lidit_jax.benchmarking.sampling import Asked
from lidit_jax.training.drawing import make_draw
from lidit_jax.training.trained import to_draw


@dataclasses.dataclass(frozen=True)
class SamplingMemory:
    """The compiler's report: `found.arguments` are the weights, texts and seeds on each device.

    The LLMs, which torch keeps on the first GPU, are not counted, nor is the VAE, which decodes
    after this program.
    """

    asked: Asked
    topology: str
    mesh: dict[str, int]
    batch: int
    parameters: int
    found: Program | TooLarge

    @property
    def memory(self) -> int:
        """Returns the bytes of a device that programs can use where nothing is set otherwise."""
        chip = chips.CHIPS[chips.of_topology(self.topology)]
        return chip.unset or chip.memory

    @property
    def fits(self) -> bool:
        return isinstance(self.found, Program) and self.found.bytes <= self.memory

    def as_json(self) -> dict:
        """Returns the report as JSON values, in bytes on each device."""
        if isinstance(self.found, Program):
            told = {k: getattr(self.found, k) for k in ("arguments", "temporaries", "code")}
        else:
            told = {"refused": self.found.told}
        return {
            "topology": self.topology,
            "mesh": self.mesh,
            "pictures": self.batch,
            "size": list(self.asked.config.data.size),
            "steps": self.asked.steps,
            "guidance": self.asked.guidance,
            "text_tokens": self.asked.tokens,
            "parameters": self.parameters,
            **told,
            "bytes": self.found.bytes,
            "memory": self.memory,
            "fits": self.fits,
            "compile_seconds": round(self.found.seconds, 1),
        }

    def table(self) -> str:
        """Returns a line for each use of a device's memory, and one for the sum."""
        mesh = ", ".join(f"{axis} {size}" for axis, size in self.mesh.items())
        height, width = self.asked.config.data.size
        parts = {}
        if isinstance(self.found, Program):
            parts = {
                "weights, texts": self.found.arguments,
                "temporaries": self.found.temporaries,
                "instructions": self.found.code,
            }
        verdict = "fits" if self.fits else "too large"
        return "\n".join(
            [
                f"{self.topology} ({mesh}), {self.batch} pictures of {height} x {width} px at "
                f"once, {self.asked.steps} steps, guidance {self.asked.guidance:g}, "
                f"{self.asked.tokens} text tokens per LLM",
                f"parameters {self.parameters:,}, compiled in {self.found.seconds:.0f} s",
                "GiB on each device, without the LLMs and the VAE",
                *(f"  {name:14}{size / chips.GIB:9.2f}" for name, size in parts.items()),
                f"  {'sum':14}{self.found.bytes / chips.GIB:9.2f}  "
                f"of {self.memory / chips.GIB:.2f}: {verdict}",
            ]
        )


def plan(asked: Asked, topology: str, sizes: tuple[int, int, int] | None) -> SamplingMemory:
    """Compiles sampling for a topology such as "v5e:2x4" or "H200:1x1"; nothing is allocated.

    sizes: of the mesh; None = `sharding.drawing_mesh`.

    Raises InputError if the config cannot be sampled from, for an invalid topology or mesh, and
    for several machines, since sampling uses the devices of one process.
    """
    devices.use_cpu()
    there = devices.of_topology(topology)
    apart = there[0].platform != "tpu" and len({d.process_index for d in there}) > 1
    if apart or len(there) > chips.CHIPS[chips.of_topology(topology)].machine:
        raise errors.InputError(
            f"--topology={topology} is several machines, but sampling uses one; want one such as "
            f"H200:1x8, v5e:2x4 or v5p:2x2x1"
        )
    given = sharding.make_mesh(sizes, there) if sizes else None
    mesh, graphdef, ema, constants = to_draw(asked.config, given, there)
    sample, shape, rows = asked.sample(mesh), asked.shape(mesh), sharding.batch_sharding(mesh)
    seeds_B = jax.ShapeDtypeStruct((sample.batch_size,), jnp.uint32, sharding=rows)
    text = jax.tree.map(lambda a: a.update(sharding=rows), spec(shape).text)
    draw = make_draw(graphdef, asked.config.objective, mesh)
    lowered = draw.lower(ema, constants, text, seeds_B, sample=sample, shape=shape.latent)
    return SamplingMemory(
        asked=asked,
        topology=topology,
        mesh=dict(mesh.shape),
        batch=sample.batch_size,
        parameters=sum(a.size for a in jax.tree.leaves(ema)),
        found=compiled(lowered, mesh),
    )
