"""What the guard lets through: its statistics, and when it judges by them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.training import guard as guards
from lidit_jax.training.guard import GuardConfig


def follow(config, values_Nx2):
    """Returns the guard after these losses and gradient norms, and which of them it let through."""
    accepts, after = (jax.jit(f, static_argnums=0) for f in (guards.accepts, guards.after))
    guard, passed = guards.fresh(), []
    for loss, norm in np.asarray(values_Nx2, np.float32):
        accepted = accepts(config, guard, loss, norm)
        guard = after(config, guard, accepted, loss, norm)
        passed.append(bool(accepted))
    return guard, passed


def test_mean_and_variance_are_those_of_the_first_updates():
    values = np.random.default_rng(0).normal(size=(20, 2)) + 5
    guard, passed = follow(GuardConfig(spike=0.0, window=20, patience=1), values)
    assert all(passed) and int(guard.updates) == 20
    np.testing.assert_allclose(guard.mean_2, values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(guard.variance_2, values.var(0), rtol=1e-5)


def test_older_updates_weigh_exponentially_less():
    values = np.random.default_rng(0).normal(size=(60, 2)) + 5
    guard, _ = follow(GuardConfig(spike=0.0, window=10, patience=1), values)
    weights = np.full(60, 0.1) * 0.9 ** np.arange(59, -1, -1)
    weights[:10] = 0.1 * 0.9**50
    np.testing.assert_allclose(weights.sum(), 1)
    mean = weights @ values
    np.testing.assert_allclose(guard.mean_2, mean, rtol=1e-5)
    np.testing.assert_allclose(guard.variance_2, weights @ (values - mean) ** 2, rtol=1e-4)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_finite_is_skipped_and_forgotten(bad, which):
    values = np.random.default_rng(0).normal(size=(9, 2))
    config = GuardConfig(spike=0.0, window=5, patience=1)
    wanted, _ = follow(config, values)
    broken = values[4].copy()
    broken[which] = bad
    guard, passed = follow(config, np.insert(values, 4, [broken, broken], axis=0))
    assert passed == [True] * 4 + [False] * 2 + [True] * 5
    jax.tree.map(np.testing.assert_array_equal, guard, wanted)
    assert int(follow(config, np.full((3, 2), np.nan))[0].in_a_row) == 3


@pytest.mark.parametrize("which", [0, 1])
def test_a_spike_is_so_many_deviations_above_the_mean_of_a_full_window(which):
    values = np.tile([[1.0, 10.0], [3.0, 30.0]], (5, 1))  # deviations of 1 and of 10
    config = GuardConfig(spike=4.0, window=10, patience=1)

    def then(deviations, before=values):
        now = before[:2].mean(0)
        now[which] += deviations * before[:2].std(0)[which]
        return follow(config, [*before, now])[1][-1]

    assert then(3.9) and not then(4.1) and then(-100)
    assert then(4.1, before=values[:9])  # too few to judge by


def test_a_run_that_never_varies_is_no_spike():
    config = GuardConfig(spike=4.0, window=3, patience=1)
    assert all(follow(config, [[0.0, 1.0]] * 9)[1])


def test_without_a_spike_everything_finite_passes():
    _, passed = follow(GuardConfig(spike=0.0, window=2, patience=1), [[1, 1]] * 9 + [[1e30, 1e30]])
    assert all(passed)


def test_settings_out_of_range_are_refused():
    for wrong in ({"spike": -1.0}, {"window": 1}, {"window": 2**31}, {"patience": 0}):
        with pytest.raises(errors.InputError, match=f"guard.{next(iter(wrong))} is"):
            GuardConfig(**({"spike": 0.0, "window": 10, "patience": 1} | wrong))


@pytest.mark.parametrize("branch", [True, False])
def test_a_skipped_update_changes_no_bit_whatever_it_would_have_made(branch):
    before = jnp.array([-0.0, 1.0, jnp.nan]), {"count": jnp.int32(3)}

    def update(a, counted, given):
        return a * given, {"count": counted["count"] + 1}

    @jax.jit
    def after(accepted, given):
        return guards.unless_skipped(accepted, update, before, given, branch)

    bits = [np.asarray(a).tobytes() for a in jax.tree.leaves(before)]
    for given in (2.0, jnp.nan, jnp.inf):
        found = [np.asarray(a).tobytes() for a in jax.tree.leaves(after(False, given))]
        assert found == bits
    doubled, counted = after(True, 2.0)
    np.testing.assert_array_equal(doubled, [0, 2, np.nan])
    assert int(counted["count"]) == 4
