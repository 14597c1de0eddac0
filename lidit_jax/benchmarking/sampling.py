"""How long sampling a picture takes, and how much of that is outside the denoiser.

Weights and texts are random: times do not depend on them. Every part is timed once per round, so
that a slow phase of the machine affects all parts; medians are over rounds.
"""

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from lidit_jax import files, rng, sharding
from lidit_jax.batch import BatchShape, fake
from lidit_jax.benchmarking.timing import Seconds, take
from lidit_jax.diffusion import samplers, schedules
from lidit_jax.models.lidit import LiDiT
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.models.vae.numbers import Numbers
from lidit_jax.training import state, tasks
from lidit_jax.training.config import Config, SampleConfig
from lidit_jax.training.drawing import conditions, make_draw
from lidit_jax.training.trained import to_draw


@dataclasses.dataclass(frozen=True)
class Asked:
    """What to sample with the config's model, whose encoders must have width and prefix_len.

    steps: of the config's sampler. guidance: 1 = off. batch: pictures at once, over all devices.
    tokens: text tokens that a prompt is padded to.
    """

    config: Config
    steps: int
    guidance: float
    batch: int
    tokens: int = 64

    def sample(self, mesh: Mesh) -> SampleConfig:
        """Returns the sampling config, its batch rounded up for the mesh."""
        sampler = dataclasses.replace(self.config.sample.sampler, steps=self.steps)
        return SampleConfig(self.guidance, sampler, sharding.rounded_up(mesh, self.batch))

    def shape(self, mesh: Mesh) -> BatchShape:
        """Returns the shape of a batch of latents and texts."""
        config = self.config
        latent = latent_size(make_codec(config.data.codec), config.data.size, config.model.patch)
        text = tuple((self.tokens, e.width) for e in config.encoders)
        return BatchShape(self.sample(mesh).batch_size, latent, text)


@dataclasses.dataclass(frozen=True)
class SamplingSpeed:
    """Measurements, in seconds per batch.

    pictures: pictures per batch. evaluations: denoiser calls per picture; rows: rows of the
      denoiser's batch per picture, 2 with guidance.
    draw: the whole program, from texts and seeds on the host to latents.
    denoiser: the same number of bare DiT calls. conditioner: computing the program's conditions.
    dispatch: passing the program's arguments to one that does nothing.
    decode: latents to pictures, None if there is no VAE. write: pictures to PNGs.
    """

    device: str
    mesh: tuple[int, int, int]
    parameters: int
    pictures: int
    evaluations: int
    rows: int
    draw: Seconds
    denoiser: Seconds
    conditioner: Seconds
    dispatch: Seconds
    decode: Seconds | None
    write: Seconds

    @property
    def sampler(self) -> float:
        """Returns the rest of the program: noise, guidance, the sampler's arithmetic, its loop."""
        known = (self.denoiser, self.conditioner, self.dispatch)
        return self.draw.median - sum(part.median for part in known)

    @property
    def batch(self) -> float:
        """Returns the median seconds from texts to PNGs, one part after the other."""
        parts = (self.draw, self.decode, self.write)
        return sum(part.median for part in parts if part)

    @property
    def picture(self) -> float:
        """Returns the seconds per picture."""
        return self.batch / self.pictures

    @property
    def outside(self) -> float:
        """Returns the share of the time spent outside the denoiser."""
        return 1 - self.denoiser.median / self.batch

    def as_json(self) -> dict:
        """Returns the numbers as JSON values, in seconds per batch."""
        made = {"sampler": self.sampler, "seconds_a_picture": self.picture}
        return dataclasses.asdict(self) | made | {"outside_the_denoiser": self.outside}

    def table(self) -> str:
        """Returns a line for each part, and one for the total."""
        measured = {
            "denoiser": self.denoiser,
            "conditioner": self.conditioner,
            "sampler": None,
            "dispatch": self.dispatch,
            "decoding": self.decode,
            "writing PNGs": self.write,
        }
        lines = [
            f"{self.parameters:,} parameters, mesh {self.mesh} on {self.device}; {self.pictures} "
            f"pictures, each with {self.evaluations} evaluations of {self.rows} rows",
            f"{'':14}{'s/picture':>10}{'share':>8}   least to most",
        ]
        for name, seconds in measured.items():
            if seconds:
                spread = (
                    f"{seconds.least / self.pictures:.4f} to {seconds.most / self.pictures:.4f}"
                )
                lines.append(self._line(name, seconds.median, spread))
            elif name == "sampler":
                lines.append(self._line(name, self.sampler, "the rest of the program"))
        lines.append(self._line("all", self.batch, f"{self.outside:.1%} outside the denoiser"))
        return "\n".join(lines)

    def _line(self, name: str, seconds: float, told: str) -> str:
        return f"{name:14}{seconds / self.pictures:>10.4f}{seconds / self.batch:>8.1%}   {told}"


def measure(asked: Asked, rounds: int = 5, mesh: Mesh | None = None) -> SamplingSpeed:
    """Measures sampling on this process's devices.

    If `data.codec` names a VAE, its decoder is measured too; "latents:8x16" stands in for one and
    is not measured.

    Args:
      rounds: how often everything is timed, after a first round that compiles it.
      mesh: None = `sharding.drawing_mesh`.

    Raises InputError if the config cannot be sampled from.
    """
    model = _RandomModel(asked.config, mesh)
    sample, shape = asked.sample(model.mesh), asked.shape(model.mesh)
    codec = make_codec(asked.config.data.codec)
    batch, text = sample.batch_size, fake(shape).text
    parts = model.parts(sample, shape.latent, text)
    images = _smooth_pictures(batch, asked.config.data.size)
    if not isinstance(codec, Numbers):
        decoder, latents = codec.on(model.mesh), np.asarray(parts["draw"]())
        parts["decode"] = lambda: decoder.decode(latents)
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder, f"{k}.png") for k in range(batch)]
        parts["write"] = lambda: [files.write_png(p, image) for p, image in zip(paths, images)]
        times = take(parts, rounds)
    return SamplingSpeed(
        device=jax.devices()[0].device_kind,
        mesh=tuple(model.mesh.shape.values()),
        parameters=model.parameters,
        pictures=batch,
        evaluations=len(model.times(sample)),
        rows=2 if sample.is_guided else 1,
        **{"decode": None} | times,
    )


class _RandomModel:
    """A model with random weights on a mesh, and the programs to time."""

    def __init__(self, config: Config, mesh: Mesh | None):
        task = tasks.without_data(config)
        self.objective = config.objective
        self.mesh, self.graphdef, ema, constants = to_draw(config, mesh)
        self.parameters = sum(a.size for a in jax.tree.leaves(ema))

        def init():
            _, params, constants = state.split(task.init(nnx.Rngs(rng.key(0, "init"))))
            # Zeros, the initial values of gates and the last layer, might compute faster.
            shaken = jax.tree.map(lambda a, like: (a + 0.01).astype(like.dtype), params, ema)
            return shaken, constants

        where = jax.tree.map(lambda a: a.sharding, (ema, constants))
        self.weights = jax.jit(init, out_shardings=where)()

    def times(self, sample: SampleConfig) -> np.ndarray:
        """Returns the times at which the denoiser is evaluated."""
        schedule = schedules.make_schedule(self.objective.schedule)
        return samplers.make_plan(sample.sampler, schedule).t.astype(np.float32)

    def parts(self, sample: SampleConfig, shape, text) -> dict[str, Callable[[], jax.Array]]:
        """Returns the sampling program and programs of its parts, ready to be called."""
        draw = make_draw(self.graphdef, self.objective, self.mesh)
        guided, times = sample.is_guided, self.times(sample)
        rows, everywhere = sharding.batch_sharding(self.mesh), sharding.replicated(self.mesh)
        given = (text, np.arange(sample.batch_size, dtype=np.uint32))
        placed, times = jax.device_put(text, rows), jax.device_put(times, everywhere)

        def program(fn):
            def traced(weights, *args):
                with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                    return fn(nnx.merge(self.graphdef, *weights), *args)

            jitted = jax.jit(traced, keep_unused=True)  # `nothing` gets all arguments, uses none
            return lambda *args: jitted(self.weights, *args)

        one = program(lambda model, text: conditions(model, text, guided)(jnp.zeros(len(given[1]))))
        condition = jax.device_put(one(placed), rows)
        x = rng.normal(jax.random.split(jax.random.key(0), len(condition.mask_BxS)), shape)
        x = jax.device_put(x, rows)
        evaluate = program(_evaluate)
        refine = program(lambda model, text, times: _refine(model, text, guided, times))
        nothing = program(lambda model, text, seeds_B: seeds_B)
        return {
            "draw": lambda: draw(
                *self.weights, *jax.device_put(given, rows), sample=sample, shape=shape
            ),
            "denoiser": lambda: evaluate(x, condition, times),
            "conditioner": lambda: refine(placed, times),
            "dispatch": lambda: nothing(*jax.device_put(given, rows)),
        }


def _evaluate(model: LiDiT, x, condition, times):
    """Returns the DiT applied at each of the times, each time to its previous output."""

    def step(x, t):
        seen = condition
        if model.conditioner.uses_time:  # compute what depends on the condition at every step
            x, seen = jax.lax.optimization_barrier((x, condition))
        return model.dit(x, model.time(jnp.full(len(x), t)), seen), None

    return jax.lax.scan(step, x, times)[0]


def _refine(model: LiDiT, text, guided: bool, times):
    """Returns the conditions at all of the times, summed."""
    rows = len(text[0].mask_BxS)
    condition_at = conditions(model, text, guided)

    def step(total, t):
        leaves = jax.tree.leaves(condition_at(jnp.full(rows, t)))
        return total + sum(leaf.sum(dtype=jnp.float32) for leaf in leaves), None

    return jax.lax.scan(step, jnp.float32(0), times)[0]


def _smooth_pictures(count: int, size: tuple[int, int]) -> np.ndarray:
    """Returns uint8 pictures of 8 px patches in random colours; noise would compress slowly."""
    height, width = size
    few = np.random.default_rng(0).integers(0, 256, (count, -(-height // 8), -(-width // 8), 3))
    return few.repeat(8, 1).repeat(8, 2)[:, :height, :width].astype(np.uint8)
