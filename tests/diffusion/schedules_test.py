import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import errors
from lidit_jax.diffusion import schedules

DISCRETE = ("linear", "scaled_linear")


@pytest.mark.parametrize("name, abar", [("linear", 4.0e-5), ("scaled_linear", 4.7e-3)])
def test_the_last_level_has_the_published_abar(name, abar):
    alpha, _ = schedules.make_schedule(name).alpha_sigma(jnp.float32(1))
    assert float(alpha) ** 2 == pytest.approx(abar, rel=0.02)


@pytest.mark.parametrize("name", DISCRETE)
def test_t_0_is_the_first_index_and_t_1_the_last(name):
    schedule = schedules.make_schedule(name)
    t = jnp.array([0, 0.49 / 999, 0.51 / 999, 1 - 0.51 / 999, 1 - 0.49 / 999, 1])
    np.testing.assert_array_equal(schedule.index(t), [0, 0, 1, 998, 999, 999])
    np.testing.assert_allclose(
        schedule.beta(jnp.array([0.0, 1.0])), [schedule.beta_first, schedule.beta_last], rtol=1e-6
    )
    alpha, sigma = schedule.alpha_sigma(jnp.float32(0))
    assert float(alpha) ** 2 == pytest.approx(1 - schedule.beta_first, rel=1e-6)
    assert float(sigma) ** 2 == pytest.approx(schedule.beta_first, rel=1e-6)


@pytest.mark.parametrize("name", DISCRETE)
def test_a_chain_preserves_variance_and_only_gets_noisier(name):
    alpha, sigma = schedules.make_schedule(name).alpha_sigma(np.linspace(0, 1, 1000))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-12)
    assert np.all(np.diff(alpha) < 0) and np.all(np.diff(sigma) > 0)


def test_stable_diffusion_spaces_the_roots_of_its_betas_evenly():
    beta = schedules.make_schedule("scaled_linear").beta(np.linspace(0, 1, 1000))
    np.testing.assert_allclose(np.diff(np.sqrt(beta), 2), 0, atol=1e-12)


def test_flow_is_the_straight_line_from_data_to_noise():
    t = jnp.linspace(0, 1, 11)
    alpha, sigma = schedules.make_schedule("flow").alpha_sigma(t)
    np.testing.assert_array_equal(alpha, 1 - t)
    np.testing.assert_array_equal(sigma, t)


@pytest.mark.parametrize("name", schedules.SCHEDULES)
def test_jax_times_give_f32_and_numpy_times_the_same_in_float64(name):
    schedule = schedules.make_schedule(name)
    t = np.linspace(0, 1, 12).reshape(3, 4)
    for exact, traced in zip(
        schedule.alpha_sigma(t), jax.jit(schedule.alpha_sigma)(jnp.asarray(t)), strict=True
    ):
        assert exact.dtype == np.float64 and traced.dtype == jnp.float32
        np.testing.assert_allclose(traced, exact, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", DISCRETE)
def test_equal_steps_from_noise_to_clean_can_visit_every_level(name):
    schedule = schedules.make_schedule(name)
    u = 1 - np.arange(1000) / 1000
    np.testing.assert_array_equal(schedule.index(schedule.level(u)), np.arange(999, -1, -1))


def test_shift_keeps_the_ends_and_adds_log_factor_to_the_logit():
    t = jnp.linspace(0, 1, 11)
    shifted = schedules.shift(t, 3.0)
    np.testing.assert_allclose(shifted[jnp.array([0, -1])], [0, 1])
    inner = slice(1, -1)
    np.testing.assert_allclose(
        jax.scipy.special.logit(shifted[inner]),
        jax.scipy.special.logit(t[inner]) + np.log(3),
        atol=1e-5,
    )


def test_an_unknown_schedule_lists_the_known_ones_nearest_first():
    with pytest.raises(errors.InputError, match="'liner'; known: linear, .*flow"):
        schedules.make_schedule("liner")
