import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import errors, rng
from lidit_jax.diffusion import samplers, schedules
from lidit_jax.diffusion.samplers import SamplerConfig

SCHEDULES = [schedules.make_schedule(name) for name in schedules.SCHEDULES]
SHAPE = (1, 1, 2)
MEAN = jnp.array([1.5, -0.5]).reshape(1, *SHAPE)
STD = jnp.array([0.5, 1.5]).reshape(1, *SHAPE)
KEYS_B = rng.per_sample(rng.key(0, "sample"), jnp.arange(256))


@dataclasses.dataclass(frozen=True)
class EvenLogSnr:
    """A variance-preserving schedule whose levels are evenly spaced in log(alpha / sigma)."""

    def alpha_sigma(self, t):
        xp = np if isinstance(t, np.ndarray) else jnp
        log_snr = 2 * (8 - 12 * t)
        return 1 / xp.sqrt(1 + xp.exp(-log_snr)), 1 / xp.sqrt(1 + xp.exp(log_snr))

    def level(self, u):
        return u


def gaussian(schedule):
    """Returns the exact denoiser of data N(MEAN, diag STD^2): E[x0 | x_t]."""

    def denoise(x_t, t_B):
        alpha, sigma = map(schedules.expand, schedule.alpha_sigma(t_B))
        return MEAN + alpha * STD**2 / (alpha**2 * STD**2 + sigma**2) * (x_t - alpha * MEAN)

    return denoise


def draw(schedule, keys_B, denoise=None, shape=SHAPE, **config):
    return jax.jit(
        lambda keys_B: samplers.sample(
            SamplerConfig(**config), schedule, denoise or gaussian(schedule), keys_B, shape
        )
    )(keys_B)


@functools.cache
def start_noise():
    """Returns the noise of `KEYS_B`: one step, and a denoiser that takes the noise for the image."""
    return draw(schedules.Flow(), KEYS_B, denoise=lambda x_t, t_B: x_t, steps=1)


def flow_end(schedule):
    """Returns where the probability flow of the Gaussian carries the noise of `KEYS_B`."""
    alpha, sigma = schedule.alpha_sigma(np.ones(()))
    spread = jnp.sqrt(alpha**2 * STD**2 + sigma**2)
    return MEAN + STD * (start_noise() - alpha * MEAN) / spread


@pytest.mark.parametrize(
    "schedule, name, steps, tolerance",
    [
        ("linear", "ddim", 1000, 1e-2),
        ("linear", "dpmpp_2m", 250, 1e-3),
        ("scaled_linear", "dpmpp_2m", 1000, 3e-3),
        ("flow", "dpmpp_2m", 250, 1e-3),
        ("flow", "euler", 1000, 1e-2),
        ("flow", "heun", 100, 5e-4),
    ],
)
def test_a_deterministic_sampler_carries_each_noise_where_the_exact_flow_does(
    schedule, name, steps, tolerance
):
    schedule = schedules.make_schedule(schedule)
    images = draw(schedule, KEYS_B, name=name, steps=steps)
    np.testing.assert_allclose(images, flow_end(schedule), atol=tolerance)


@pytest.mark.parametrize(
    "schedule, config",
    [
        ("linear", {"name": "ddpm", "steps": 1000}),
        ("flow", {"name": "ddpm", "steps": 250}),
        ("linear", {"name": "ddim", "steps": 250, "eta": 0.5}),
        ("linear", {"name": "dpmpp_2m", "steps": 50}),
        ("flow", {"name": "heun", "steps": 50}),
    ],
)
def test_a_sampler_given_the_exact_denoiser_returns_the_mean_and_covariance(schedule, config):
    schedule = schedules.make_schedule(schedule)
    images = draw(schedule, KEYS_B, shape=(6, 6, 2), **config).reshape(-1, 2)
    np.testing.assert_allclose(images.mean(0), MEAN.reshape(2), atol=0.03)
    np.testing.assert_allclose(images.std(0), STD.reshape(2), rtol=0.02)
    assert abs(np.corrcoef(images.T)[0, 1]) < 0.03


def test_ddpm_over_every_level_has_the_posterior_of_the_paper():
    beta = np.linspace(1e-4, 0.02, 1000)[::-1]
    abar = np.cumprod(1 - beta[::-1])[::-1]
    abar_before = np.append(abar[1:], 1.0)
    plan = samplers.make_plan(
        SamplerConfig(name="ddpm", steps=1000), schedules.make_schedule("linear")
    )
    close = functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12)
    close(plan.now, np.sqrt(abar_before) * beta / (1 - abar))
    close(plan.x, np.sqrt(1 - beta) * (1 - abar_before) / (1 - abar))
    close(plan.noise**2, (1 - abar_before) / (1 - abar) * beta)
    close(plan.before, 0)


def test_ddim_with_eta_1_is_ddpm_and_with_eta_0_adds_no_noise():
    for schedule in SCHEDULES:
        ancestral = samplers.make_plan(SamplerConfig(name="ddpm", steps=20), schedule)
        levels = samplers.make_levels(SamplerConfig(steps=20), schedule)
        for ours, theirs in zip(samplers.ddim(levels, eta=1.0), ancestral, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert not samplers.ddim(levels, eta=0.0).noise.any()
        assert ancestral.noise[:-1].all() and ancestral.noise[-1] == 0


def test_every_step_of_ddpm_leaves_a_known_image_at_the_level_s_variance():
    """If the denoiser knows x0, x_s must have mean alpha_s x0 and variance sigma_s^2."""
    for schedule in SCHEDULES:
        levels = samplers.make_levels(SamplerConfig(steps=20), schedule)
        for eta in (0.0, 0.3, 1.0):
            plan = samplers.ddim(levels, eta)
            mean = plan.x * levels.alpha[:-1] + plan.now
            variance = (plan.x * levels.sigma[:-1]) ** 2 + plan.noise**2
            np.testing.assert_allclose(mean, levels.alpha[1:], atol=1e-12)
            np.testing.assert_allclose(variance, levels.sigma[1:] ** 2, atol=1e-12)


@pytest.mark.parametrize(
    "name, schedule, order",
    [
        ("euler", schedules.Flow(), 1),
        ("heun", schedules.Flow(), 2),
        ("ddim", EvenLogSnr(), 1),
        ("dpmpp_2m", EvenLogSnr(), 2),
    ],
)
def test_halving_the_step_divides_the_error_by_2_to_the_order(name, schedule, order):
    coarse, fine = (
        jnp.abs(draw(schedule, KEYS_B, name=name, steps=steps) - flow_end(schedule)).mean()
        for steps in (40, 80)
    )
    assert float(jnp.log2(coarse / fine)) == pytest.approx(order, abs=0.2)


def test_dpmpp_2m_on_flow_is_first_order_until_it_has_two_finite_log_snrs():
    for steps in (1, 2, 3, 25):
        levels = samplers.make_levels(SamplerConfig(steps=steps), schedules.Flow())
        plan, first_order = samplers.dpmpp_2m(levels), samplers.ddim(levels)
        assert all(np.isfinite(column).all() for column in plan)
        np.testing.assert_array_equal(plan.now[:2], first_order.now[:2])
        assert not plan.before[:2].any() and plan.before[-1] == 0
        assert plan.before[2:-1].all()
    assert plan.x[0] == 1 - 1 / 25 and plan.now[0] == pytest.approx(1 / 25)


@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_last_step_is_the_clean_image_itself(steps):
    for name, schedule in itertools.product(samplers.SAMPLERS, SCHEDULES):
        if name not in samplers.FLOW_ONLY or schedule == schedules.Flow():
            plan = samplers.make_plan(SamplerConfig(name=name, steps=steps), schedule)
            last = (plan.x[-1], plan.now[-1], plan.before[-1], plan.noise[-1])
            assert last == (0, 1, 0, 0)


@pytest.mark.parametrize("name", ["ddpm", "dpmpp_2m", "heun"])
def test_an_image_is_a_function_of_its_key_alone(name):
    def drawn(keys_B):
        return draw(schedules.Flow(), keys_B, lambda x_t, t_B: jnp.tanh(x_t), name=name, steps=6)

    five = drawn(KEYS_B[:5])
    np.testing.assert_array_equal(drawn(KEYS_B[3:4]), five[3:4])
    assert len(np.unique(five)) == five.size


def test_no_step_reuses_the_noise_of_another():
    """Around x0 = 0 the variances of the draws add up; a noise that came twice would add amplitudes."""
    config = {"name": "ddim", "steps": 4, "eta": 0.5}
    plan = samplers.make_plan(SamplerConfig(**config), schedules.Flow())
    variance = 1.0
    for on_x, noise in zip(plan.x[:-1], plan.noise[:-1], strict=True):
        variance = on_x**2 * variance + noise**2

    def keep_the_last(x_t, t_B):
        return jnp.where(schedules.expand(t_B) > plan.t[-1], 0, x_t)

    x = draw(schedules.Flow(), KEYS_B, keep_the_last, shape=(6, 6, 2), **config)
    assert float(x.var()) == pytest.approx(variance, rel=0.03)


@pytest.mark.parametrize(
    "name, evaluations", [("ddpm", 10), ("ddim", 10), ("dpmpp_2m", 10), ("euler", 10), ("heun", 19)]
)
def test_the_denoiser_is_evaluated_as_often_as_promised(name, evaluations):
    plan = samplers.make_plan(SamplerConfig(name=name, steps=10), schedules.Flow())
    assert len(plan.t) == evaluations


def test_levels_trail_from_pure_noise():
    linear = schedules.make_schedule("linear")
    levels = samplers.make_levels(SamplerConfig(steps=25), linear)
    np.testing.assert_array_equal(linear.index(levels.t[:-1]), np.arange(999, 0, -40))
    levels = samplers.make_levels(SamplerConfig(steps=4, shift=3.0), schedules.Flow())
    np.testing.assert_allclose(levels.t, [1, 0.9, 0.75, 0.5, 0])
    assert (levels.alpha[-1], levels.sigma[-1]) == (1, 0)


@pytest.mark.parametrize("name", ["euler", "heun"])
def test_a_flow_sampler_on_another_schedule_names_those_that_work(name):
    with pytest.raises(errors.InputError, match="use one of ddpm, ddim, dpmpp_2m"):
        samplers.make_plan(SamplerConfig(name=name), schedules.make_schedule("linear"))


def test_more_steps_than_levels_are_refused():
    linear = schedules.make_schedule("linear")
    with pytest.raises(errors.InputError, match="1001 steps .* use fewer steps"):
        samplers.make_levels(SamplerConfig(steps=1001), linear)
    with pytest.raises(errors.InputError, match="shift 8.0"):
        samplers.make_levels(SamplerConfig(steps=500, shift=8.0), linear)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"name": "dpmpp_2n"}, "unknown sampler 'dpmpp_2n'; known: dpmpp_2m, "),
        ({"eta": 0.5}, "eta is only for ddim"),
        ({"name": "ddim", "eta": 1.5}, "eta 1.5"),
        ({"steps": 0}, "steps 0 must be between 1"),
        ({"shift": 0.0}, "shift 0.0 must be above 0"),
    ],
)
def test_a_wrong_setting_says_what_to_use(settings, message):
    with pytest.raises(errors.InputError, match=message):
        SamplerConfig(**settings)
