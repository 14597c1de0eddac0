"""Steps that would spoil a run are skipped: those whose loss or gradient is not like those before.

A sample that is broken in a way that no reader can see, or a spike of the loss, would else enter
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
        errors.check_range("guard.patience", self.patience, 1, MOST)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guard:
    """What a run knows of its last updates.

    mean_2, variance_2: f32, of their losses and of their gradient norms.
    updates: int32, steps that were not skipped.
    in_a_row: int32, steps skipped since then.
    """

    mean_2: jax.Array
    variance_2: jax.Array
    updates: jax.Array
    in_a_row: jax.Array


def fresh() -> Guard:
    """Returns the guard of a run that has made no update."""
    return Guard(jnp.zeros(2), jnp.zeros(2), jnp.int32(0), jnp.int32(0))


def accepts(config: GuardConfig, guard: Guard, loss: jax.Array, grad_norm: jax.Array) -> jax.Array:
    """Returns whether a step may change the run: bool, the same on every device.

    Both must be finite. With `spike` neither may be more than so many standard deviations above
    its mean over the last `window` updates, as soon as there were as many.
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
    """Returns the guard after a step. One that was skipped is counted, and is not among the last updates.

    Of the first `window` updates mean and variance are plain; then the newest weighs 1 / window, and
    older ones exponentially less.
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
    """Returns `update(*before, given)` of a step that is accepted, and `before` of one that is not.

    branch: the update is not computed in vain, and nothing is chosen array by array. On a CPU, which
    computes anew what a choice keeps from being overwritten, that is a tenth of the quickstart's step. A GPU
    could not begin a branch before its host knows which, and fuses the choice into the update.
    """
    if branch:
        return jax.lax.cond(accepted, update, lambda *same: same[:-1], *before, given)
    return jax.tree.map(
        lambda new, old: jnp.where(accepted, new, old), update(*before, given), before
    )
