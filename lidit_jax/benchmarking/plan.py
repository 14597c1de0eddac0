"""What a run will need: memory, FLOPs and collectives of the real train step, and what fits.

The step is compiled for devices that are not present, and nothing is allocated. For TPUs and GPUs,
the answer comes from their own compiler. Virtual CPU devices give an upper bound for any chip: a
CPU computes bf16 in f32, fuses less, and reduces whole gradients where others scatter them.
"""

import dataclasses
import math

import jax
from flax import nnx
from jax.sharding import Mesh

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import assumed, chips, devices, flops, least_time
from lidit_jax.benchmarking.least_time import LeastTime
from lidit_jax.benchmarking.program import Program, Setting, Step, TooLarge
from lidit_jax.models.stacking import REMAT_POLICIES
from lidit_jax.training.config import Config

# From least to most recomputation.
POLICIES = list(REMAT_POLICIES)
_PROBE = 16  # samples, at most, of the larger micro-batch compiled to find a policy's line


@dataclasses.dataclass(frozen=True)
class Asked:
    """What to plan, for virtual devices or a topology such as "v5e:8x8" or "H200:4x8"."""

    config: Config
    mesh: tuple[int, int, int]
    devices: int = 0
    topology: str = ""
    lengths: assumed.Lengths = assumed.Lengths()
    search: bool = True

    def __post_init__(self):
        if bool(self.devices) == bool(self.topology):
            raise errors.InputError(
                "use either --devices=64, for virtual devices, or --topology, such as "
                "v5e:8x8 for a TPU slice or H200:4x8 for four machines of eight GPUs"
            )


@dataclasses.dataclass(frozen=True)
class Choice:
    """The setting chosen for a chip. bytes: on one device; time: the least time of a step.

    setting and time are None if nothing fits; then bytes is the least that any tried setting needs.
    """

    chip: str
    setting: Setting | None
    bytes: int
    time: LeastTime | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """The answer. tried: compiled or refused programs, in this order; choices: one per chip."""

    asked: Asked
    step: Step
    parameters: int
    products: list[flops.Product]
    xla_flops: float
    tried: list[Program | TooLarge]
    choices: list[Choice]


def make(asked: Asked) -> Plan:
    """Returns the plan. Raises InputError if config, mesh, devices and batch do not match."""
    devices.use_cpu()
    config = assumed.measured(asked.config, asked.lengths)
    found = devices.of_topology(asked.topology) if asked.topology else None
    mesh = sharding.make_mesh(asked.mesh, found or devices.virtual(asked.devices))
    sharding.check_batch(mesh, config.train.batch_size, config.train.accumulate)
    task = assumed.task(config, asked.lengths)
    step = Step(config, task, mesh)
    parameters = sum(math.prod(p.shape) for p in jax.tree.leaves(step.like.params))
    products = flops.forward(task)
    known = [chips.of_topology(asked.topology)] if asked.topology else list(chips.CHIPS)
    if mesh.devices.flat[0].platform == "tpu":
        tried, choices = _search_by_refusals(step, asked, products, known[0])
    else:
        tried, choices = _search_by_lines(step, asked, products, known)
    return Plan(asked, step, parameters, products, forward_flops(step), tried, choices)


def forward_flops(step: Step) -> float:
    """Returns XLA's count of FLOPs in one picture's forward pass, elementwise work included.

    XLA counts a loop's body once, so the loop over blocks is unrolled; it is lowered, not compiled.
    """
    model = dataclasses.replace(step.task.model, unroll=step.task.model.depth, remat="none")
    shape = dataclasses.replace(step.task.shape, batch_size=1)
    task = dataclasses.replace(step.task, model=model, shape=shape)
    graphdef, weights = nnx.split(jax.eval_shape(lambda: task.init(nnx.Rngs(0))))
    batch = task.batch_spec()
    time_B, drop_B = jax.ShapeDtypeStruct((1,), "float32"), jax.ShapeDtypeStruct((1,), bool)

    def forward(weights, x, t_B, text, drop_B):
        return nnx.merge(graphdef, weights)(x, t_B, text, drop_B)

    lowered = jax.jit(forward).lower(weights, batch.latents_BxHxWxC, time_B, batch.text, drop_B)
    return lowered.cost_analysis()["flops"]


def settings(config: Config, mesh: Mesh, remat: str) -> list[Setting]:
    """Returns a setting for every micro-batch that divides a device's share, the largest first."""
    share = config.train.batch_size // (mesh.shape["replica"] * mesh.shape["fsdp"])
    return [Setting(remat, share // n, n) for n in range(1, share + 1) if share % n == 0]


def by_time(
    step: Step, chip: str, products: list[flops.Product]
) -> list[tuple[Setting, LeastTime]]:
    """Returns every setting with its least time on a chip, the fastest first.

    Ties are ordered by recomputation, least first, then by micro-batch, largest first.
    """
    every = [s for remat in POLICIES for s in settings(step.config, step.mesh, remat)]
    timed = [(s, least_time.of(step, s, chips.CHIPS[chip], products)) for s in every]
    return sorted(timed, key=lambda pair: pair[1].seconds)


# ---- a TPU's compiler knows what fits: try settings in the order of time, until one does


def _search_by_refusals(step: Step, asked: Asked, products, chip: str) -> tuple[list, list[Choice]]:
    tried = []
    wanted, own = by_time(step, chip, products), _own(step.config, step.mesh)
    for setting, time in wanted if asked.search else [w for w in wanted if w[0] == own]:
        if any(_cannot_fit(setting, refused, chips.CHIPS[chip].memory) for refused in tried):
            continue
        found = step.compile(setting)
        tried.append(found)
        if isinstance(found, Program):
            return tried, [Choice(chip, setting, found.bytes, time)]
    return tried, [Choice(chip, None, min(t.wanted for t in tried))]


def _cannot_fit(setting: Setting, refused: TooLarge, room: int) -> bool:
    """Whether a refusal rules out a setting that keeps as much, by its share of the micro-batch.

    Half of a micro-batch needs more than half of the memory.
    """
    keeps_less = POLICIES.index(setting.remat) > POLICIES.index(refused.setting.remat)
    share = setting.micro_batch / refused.setting.micro_batch
    return not keeps_less and (share >= 1 or share * refused.wanted > room)


# ---- others also compile what does not fit: memory is a line over micro-batches, a chip a limit


def _search_by_lines(
    step: Step, asked: Asked, products, known: list[str]
) -> tuple[list, list[Choice]]:
    if asked.search:
        lines = {remat: Line.of(step, remat) for remat in POLICIES}
        tried = [probe for line in lines.values() for probe in line.probes]
    else:
        tried = [step.compile(_own(step.config, step.mesh))]
        lines = {tried[0].setting.remat: Line(tuple(tried))}
    choices = []
    for chip in known:
        timed = by_time(step, chip, products)
        if not asked.search:
            timed = [pair for pair in timed if pair[0] == tried[0].setting]
        choices.append(choose(chip, timed, lines))
    return tried, choices


@dataclasses.dataclass(frozen=True)
class Line:
    """A policy's memory, linear in the micro-batch through two compiled ones; flat below both."""

    probes: tuple[Program | TooLarge, ...]

    @classmethod
    def of(cls, step: Step, remat: str) -> "Line":
        """Compiles the smallest micro-batch, and the largest up to `_PROBE` that accumulates."""
        possible = settings(step.config, step.mesh, remat)
        several = [s for s in possible if s.accumulate > 1 and s.micro_batch <= _PROBE]
        wanted = dict.fromkeys((several or possible)[i] for i in (-1, 0))
        return cls(tuple(step.compile(setting) for setting in wanted))

    def bytes(self, micro_batch: int) -> int:
        """Returns the bytes on one device for this micro-batch."""
        first, last = self.probes[0], self.probes[-1]
        span = last.setting.micro_batch - first.setting.micro_batch
        slope = (last.bytes - first.bytes) / span if span else 0
        above = micro_batch - first.setting.micro_batch
        if above and not span:
            raise ValueError("one compilation says nothing about another micro-batch")
        return first.bytes + int(max(slope, 0) * max(above, 0))


def choose(chip: str, timed: list[tuple[Setting, LeastTime]], lines: dict[str, Line]) -> Choice:
    """Returns the first setting, in the order of `by_time`, whose memory fits a chip."""
    least = math.inf
    for setting, time in timed:
        wanted = lines[setting.remat].bytes(setting.micro_batch)
        if wanted <= chips.CHIPS[chip].memory:
            return Choice(chip, setting, wanted, time)
        least = min(least, wanted)
    return Choice(chip, None, int(least))


def _own(config: Config, mesh: Mesh) -> Setting:
    """Returns the setting of the config itself."""
    n = config.train.accumulate
    return next(s for s in settings(config, mesh, config.model.remat) if s.accumulate == n)
