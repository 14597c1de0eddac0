"""Noise schedules: x_t = alpha(t) x0 + sigma(t) eps, from data at t = 0 to noise at t = 1."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from lidit_jax import errors

Array = jax.Array | np.ndarray


class Schedule(Protocol):
    """What objectives and samplers need from a schedule. Methods keep the shape and dtype of t.

    Training passes jax f32 arrays; samplers pass numpy float64 arrays, because their
    coefficients are differences of nearly equal numbers, and get numpy float64 back.
    """

    def alpha_sigma(self, t: Array) -> tuple[Array, Array]:
        """Returns the signal and noise factors at times t in [0, 1]."""

    def level(self, u: Array) -> Array:
        """Returns the time t of the noise level at u in (0, 1], from clean to noise."""

    def visited(self, u: Array) -> Array:
        """Maps a draw u in [0, 1) to a training time; uniform draws give uniform levels."""


@dataclasses.dataclass(frozen=True)
class Discrete:
    """The variance-preserving chain of DDPM (arXiv 2006.11239, eq. 2 and 4).

    Of the `steps` noise levels, index 0 is the least noisy and has sigma > 0; the clean image lies
    one level before it. Betas are evenly spaced in beta ** (1 / power).
    """

    beta_first: float
    beta_last: float
    power: int = 1
    steps: int = 1000

    def index(self, t: Array) -> Array:
        """Returns the index in 0..steps-1 nearest to each time t in [0, 1]."""
        xp = np if isinstance(t, np.ndarray) else jnp
        return xp.round(t * (self.steps - 1)).astype("int32")

    def level(self, u: Array) -> Array:
        before_first = self.steps * u - 1  # in 0..steps-1; the clean image, u = 0, is at -1
        return self.index(before_first.clip(0) / (self.steps - 1)) / (self.steps - 1)

    def visited(self, u: Array) -> Array:
        xp = np if isinstance(u, np.ndarray) else jnp
        return xp.floor(u * self.steps).clip(0, self.steps - 1) / (self.steps - 1)

    def alpha_sigma(self, t: Array) -> tuple[Array, Array]:
        abar = np.cumprod(1 - self._betas())
        return self._lookup(np.sqrt(abar), t), self._lookup(np.sqrt(1 - abar), t)

    def beta(self, t: Array) -> Array:
        """Returns beta at times t: the variance added by the chain's step to this level."""
        return self._lookup(self._betas(), t)

    def _betas(self) -> np.ndarray:
        roots = np.linspace(
            self.beta_first ** (1 / self.power), self.beta_last ** (1 / self.power), self.steps
        )
        return roots**self.power

    def _lookup(self, table: np.ndarray, t: Array) -> Array:
        xp = np if isinstance(t, np.ndarray) else jnp
        return xp.asarray(table, t.dtype)[self.index(t)]


@dataclasses.dataclass(frozen=True)
class Flow:
    """Rectified flow, a straight line from data to noise (arXiv 2209.03003; 2403.03206, eq. 13)."""

    def alpha_sigma(self, t: Array) -> tuple[Array, Array]:
        return 1 - t, t

    def level(self, u: Array) -> Array:
        return u

    def visited(self, u: Array) -> Array:
        return u


SCHEDULES: dict[str, Callable[[], Schedule]] = {
    "linear": lambda: Discrete(1e-4, 0.02),  # DDPM, DiT, PixArt; abar at t = 1 is 4.0e-5
    "scaled_linear": lambda: Discrete(0.00085, 0.012, power=2),  # Stable Diffusion; 4.7e-3
    "flow": Flow,
}


def make_schedule(name: str) -> Schedule:
    """Returns the schedule of this name. Raises InputError for an unknown name."""
    if name not in SCHEDULES:
        raise errors.unknown_name("schedule", name, SCHEDULES)
    return SCHEDULES[name]()


def shift(t: Array, factor: float) -> Array:
    """Returns t moved toward noise by a factor > 1; 0 and 1 stay (arXiv 2403.03206, eq. 23)."""
    return factor * t / (1 + (factor - 1) * t)


def expand(c_B: Array) -> Array:
    """Reshapes one number per sample to [B, 1, 1, 1], to multiply images."""
    return c_B[:, None, None, None]
