"""From noise to a clean image, given denoise(x_t, t) -> x0. Samplers do not know the objective.

Every sampler here is a plan: the noise level of each denoiser evaluation, and four factors
    x <- x_factor x + now x0 + before (x0 of the previous evaluation) + noise (fresh noise)
Plans are numpy float64 and fixed before tracing; one `lax.scan` runs any of them. The last row's
factors are (0, 1, 0, 0): it returns x0. A denoiser is evaluated only at the given levels.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax import errors, rng
from lidit_jax.diffusion import schedules

MOST_STEPS = 10_000  # far more than any sampler benefits from


@dataclasses.dataclass(frozen=True)
class SamplerConfig:
    """How to sample.

    name: a name of `SAMPLERS`; euler and heun need schedule flow.
    steps: noise levels visited; heun evaluates the network 2 steps - 1 times, others once per step.
    eta: fresh noise of ddim, from 0 (deterministic) to 1 (ddpm); 0 for the others.
    shift: `schedules.shift` of the levels; > 1 spends more steps near noise.
    """

    name: str = "dpmpp_2m"
    steps: int = 25
    eta: float = 0.0
    shift: float = 1.0

    def __post_init__(self):
        if self.name not in SAMPLERS:
            raise errors.unknown_name("sampler", self.name, SAMPLERS)
        if not 1 <= self.steps <= MOST_STEPS:
            raise errors.InputError(f"steps {self.steps} must be between 1 and {MOST_STEPS}")
        if not 0 <= self.eta <= 1 or (self.eta and self.name != "ddim"):
            raise errors.InputError(
                f"eta {self.eta} with sampler {self.name!r}: eta is only for ddim, in [0, 1]; use 0"
            )
        if self.shift <= 0:
            raise errors.InputError(f"shift {self.shift} must be above 0")


class Levels(NamedTuple):
    """The visited levels, then the clean image (0, 1, 0): numpy float64, each [steps + 1]."""

    t: np.ndarray
    alpha: np.ndarray
    sigma: np.ndarray


class Plan(NamedTuple):
    """One row per denoiser evaluation: its time, and the factors of the update."""

    t: np.ndarray
    x: np.ndarray
    now: np.ndarray
    before: np.ndarray
    noise: np.ndarray


def make_levels(config: SamplerConfig, schedule: schedules.Schedule) -> Levels:
    """Returns levels evenly spaced from pure noise to the clean image
    ("trailing", arXiv 2305.08891).

    Raises InputError if the schedule has too few levels for this many steps.
    """
    u = 1 - np.arange(config.steps) / config.steps
    t = schedule.level(schedules.shift(u, config.shift))
    if np.any(np.diff(t) >= 0):
        raise errors.InputError(
            f"{config.steps} steps with shift {config.shift} visit a noise level of {schedule} "
            f"twice; use fewer steps or a shift nearer to 1"
        )
    alpha, sigma = schedule.alpha_sigma(t)
    return Levels(np.append(t, 0.0), np.append(alpha, 1.0), np.append(sigma, 0.0))


def ddim(levels: Levels, eta: float = 0.0) -> Plan:
    """DDIM (arXiv 2010.02502, eq. 12 and 16), for any alpha and sigma."""
    (alpha, alpha_next), (sigma, sigma_next) = (
        (c[:-1], c[1:]) for c in (levels.alpha, levels.sigma)
    )
    added = 1 - (alpha / alpha_next * sigma_next / sigma) ** 2  # share of sigma^2 new at this level
    x = sigma_next / sigma * np.sqrt(1 - eta**2 * added)
    noise = eta * sigma_next * np.sqrt(added)
    return Plan(levels.t[:-1], x, alpha_next - x * alpha, np.zeros_like(x), noise)


def ddpm(levels: Levels) -> Plan:
    """Ancestral sampling with the posterior variance (arXiv 2006.11239, eq. 6 and 7)."""
    return ddim(levels, eta=1.0)


def dpmpp_2m(levels: Levels) -> Plan:
    """DPM-Solver++(2M) (arXiv 2211.01095, algorithm 2); its first and last steps are first order.

    Where alpha is 0, log(alpha / sigma) is -inf; the step from there is first order and exact in
    that limit, and the next has nothing to extrapolate from: h / inf = 0 makes it first order too.
    """
    first_order = ddim(levels)
    with np.errstate(divide="ignore"):
        h = np.diff(np.log(levels.alpha / levels.sigma))
    extra = np.zeros_like(h)
    extra[1:-1] = h[1:-1] / (2 * h[:-2])
    now = first_order.now
    return first_order._replace(now=now * (1 + extra), before=-now * extra)


def euler(levels: Levels) -> Plan:
    """Euler's method on dx/dt = (x - x0) / t; on rectified flow DDIM is the same step."""
    return ddim(levels)


def heun(levels: Levels) -> Plan:
    """Heun's method: an Euler step, then its velocity averaged with the one at its end point.

    With a and b the x0 before and after the Euler step to (x', t'), both velocities are taken at
    x', (x' - a) / t' and (x' - b) / t', so the correction is (t - t') / (2 t') (b - a).
    The step to the clean image stays Euler's.
    """
    step = euler(levels)
    t, t_next = levels.t[:-2], levels.t[1:-1]
    gain = (t - t_next) / (2 * t_next)
    zero = np.zeros_like(gain)
    correction = Plan(t_next, np.ones_like(gain), gain, -gain, zero)
    rows = np.empty((2 * len(step.t) - 1, len(Plan._fields)))
    rows[0::2], rows[1::2] = np.stack(step, -1), np.stack(correction, -1)
    return Plan(*rows.T)


SAMPLERS: dict[str, Callable[..., Plan]] = {
    "ddpm": ddpm,
    "ddim": ddim,
    "dpmpp_2m": dpmpp_2m,
    "euler": euler,
    "heun": heun,
}
FLOW_ONLY = ("euler", "heun")


def make_plan(config: SamplerConfig, schedule: schedules.Schedule) -> Plan:
    """Returns the sampler's plan on this schedule. Raises InputError where it does not apply."""
    if config.name in FLOW_ONLY and not isinstance(schedule, schedules.Flow):
        works = ", ".join(name for name in SAMPLERS if name not in FLOW_ONLY)
        raise errors.InputError(
            f"sampler {config.name!r} is for schedule 'flow', got {schedule}; use one of {works}"
        )
    levels = make_levels(config, schedule)
    return ddim(levels, config.eta) if config.name == "ddim" else SAMPLERS[config.name](levels)


def sample(
    config: SamplerConfig,
    schedule: schedules.Schedule,
    denoise: Callable[[jax.Array, jax.Array], jax.Array],
    keys_B: jax.Array,
    shape: tuple[int, ...],
) -> jax.Array:
    """Returns clean images [B, *shape], f32; row k depends on key k alone.

    Args:
      config: the sampler.
      schedule: the schedule that the network was trained with.
      denoise: (x_t [B, *shape] f32, t_B f32) -> x0 of the same shape, in model units.
      keys_B: one random key per image.
      shape: of one image, (H, W, C).
    """
    plan = make_plan(config, schedule)
    step_keys_B = rng.named_each(keys_B, "steps")

    def evaluate(carry, row_and_index):
        x, x0_before = carry
        row, index = row_and_index
        x0 = denoise(x, jnp.full(keys_B.shape, row.t)).astype(jnp.float32)
        x = row.x * x + row.now * x0 + row.before * x0_before
        if plan.noise.any():
            keys_at_step_B = jax.vmap(lambda k: jax.random.fold_in(k, index))(step_keys_B)
            x += row.noise * rng.normal(keys_at_step_B, shape)
        return (x, x0), None

    x = rng.normal(rng.named_each(keys_B, "start"), shape)
    rows = jax.tree.map(lambda column: jnp.asarray(column, jnp.float32), plan)
    (x, _), _ = jax.lax.scan(evaluate, (x, jnp.zeros_like(x)), (rows, jnp.arange(len(plan.t))))
    return x
