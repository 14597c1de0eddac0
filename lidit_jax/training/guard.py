"""Skips steps that would spoil a run: those whose loss or gradient is unlike those before.

Otherwise a sample that is broken in a way that no reader can detect, or a loss spike, would enter
the parameters, the moments and the average, and stay there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from lidit_jax import errors

MOST = 2**31 - 1  # updates that an int32 counts


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """What is skipped; see configs/base.py."""

    spike: float
    window: int
    patience: int

    def __post_init__(self):
        errors.check_range("guard.spike", self.spike, 0)
        errors.check_range("guard.window", self.window, 2, MOST)
        errors.check_range("guard.patience", self.patience, 1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guard:
    """Statistics of a run's recent updates.

    mean_2, variance_2: f32, of the losses and of the gradient norms.
    updates: int32, number of steps not skipped.
    in_a_row: int32, steps skipped since the last update.
    """

    mean_2: jax.Array
    variance_2: jax.Array
    updates: jax.Array
    in_a_row: jax.Array


def fresh() -> Guard:
    """Returns the guard of a run without updates."""
    return Guard(jnp.zeros(2), jnp.zeros(2), jnp.int32(0), jnp.int32(0))


def accepts(config: GuardConfig, guard: Guard, loss: jax.Array, grad_norm: jax.Array) -> jax.Array:
    """Returns whether a step may change the run: bool, the same on every device.

    Loss and gradient norm must be finite. With `spike`, neither may be more than that many standard
    deviations above its mean over the last `window` updates, once there have been that many.
    """
    now_2 = jnp.stack([loss, grad_norm])
    finite = jnp.isfinite(now_2).all()
    if not config.spike:
        return finite
    usual = (now_2 <= guard.mean_2 + config.spike * jnp.sqrt(guard.variance_2)).all()
    return finite & (usual | (guard.updates < config.window))


def after(
    config: GuardConfig, guard: Guard, accepted: jax.Array, loss: jax.Array, grad_norm: jax.Array
) -> Guard:
    """Returns the guard after a step. A skipped step is counted, but does not enter the statistics.

    Over the first `window` updates mean and variance are unweighted; after that the newest update
    has weight 1 / window, and older ones exponentially less.
    """
    weight = 1 / jnp.minimum(guard.updates + 1, config.window).astype(jnp.float32)
    away_2 = jnp.stack([loss, grad_norm]) - guard.mean_2
    mean_2 = guard.mean_2 + weight * away_2
    variance_2 = (1 - weight) * (guard.variance_2 + weight * away_2**2)
    return Guard(
        jnp.where(accepted, mean_2, guard.mean_2),
        jnp.where(accepted, variance_2, guard.variance_2),
        guard.updates + accepted,
        jnp.where(accepted, 0, guard.in_a_row + 1),
    )


def unless_skipped(
    accepted: jax.Array, update: Callable, before: tuple, given: Any, branch: bool
) -> tuple:
    """Returns `update(*before, given)` if the step is accepted, else `before`.

    branch: use a conditional rather than a select per array, so that the update is not computed in
    vain. On a CPU, which recomputes what a select keeps from being overwritten, this saves a tenth
    of the quickstart's step. A GPU could not start a branch before its host knows which one, and
    fuses the select into the update.
    """
    if branch:
        return jax.lax.cond(accepted, update, lambda *same: same[:-1], *before, given)
    return jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), update(*before, given), before
    )
