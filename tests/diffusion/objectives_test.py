import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import errors, rng
from lidit_jax.diffusion import objectives, schedules
from lidit_jax.diffusion.objectives import ObjectiveConfig

PAIRS = list(itertools.permutations(objectives.VIEWS, 2))
T_B = jnp.array([0.1, 0.3, 0.5, 0.7, 0.9, 0.97])
X0, NOISE, OTHER = jax.random.normal(jax.random.key(0), (3, 6, 4, 4, 3))
KEYS_B = rng.per_sample(rng.key(0, "time"), jnp.arange(20_000))


def alpha_sigma(schedule, t_B):
    return tuple(map(schedules.expand, schedules.make_schedule(schedule).alpha_sigma(t_B)))


def truth(view, x0, noise, alpha, sigma):
    return {"x0": x0, "eps": noise, "v": alpha * noise - sigma * x0, "flow": noise - x0}[view]


def mean(x_BxHxWxC):
    return jnp.mean(x_BxHxWxC, axis=(1, 2, 3))


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
@pytest.mark.parametrize("source, target", PAIRS)
def test_a_converted_truth_is_the_truth_in_the_other_view_and_back(schedule, source, target):
    alpha, sigma = alpha_sigma(schedule, T_B)
    x_t = objectives.corrupt(X0, NOISE, T_B, schedules.make_schedule(schedule))
    given, wanted = (truth(view, X0, NOISE, alpha, sigma) for view in (source, target))
    converted = objectives.convert(given, x_t, alpha, sigma, source, target)
    np.testing.assert_allclose(converted, wanted, atol=2e-4)
    back = objectives.convert(converted, x_t, alpha, sigma, target, source)
    np.testing.assert_allclose(back, given, atol=2e-4)


@pytest.mark.parametrize("source, target", PAIRS)
def test_any_prediction_survives_a_round_trip_for_any_alpha_and_sigma(source, target):
    alpha, sigma = 1.3, 0.4
    there = objectives.convert(OTHER, X0, alpha, sigma, source, target)
    back = objectives.convert(there, X0, alpha, sigma, target, source)
    np.testing.assert_allclose(back, OTHER, atol=1e-5)


@pytest.mark.parametrize("source, target", PAIRS)
def test_conversions_stay_finite_where_flow_has_no_signal_or_no_noise(source, target):
    t_B = jnp.array([0.0, 1.0, 0.0, 1.0, 0.0, 1.0])
    alpha, sigma = alpha_sigma("flow", t_B)
    x_t = objectives.corrupt(X0, NOISE, t_B, schedules.make_schedule("flow"))
    value, gradient = jax.value_and_grad(
        lambda pred: objectives.convert(pred, x_t, alpha, sigma, source, target).sum()
    )(OTHER)
    assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_the_floor_changes_nothing_on_a_discrete_chain(schedule):
    assert all(float(c.min()) > objectives.FLOOR for c in alpha_sigma(schedule, jnp.arange(2.0)))


def test_below_the_floor_a_division_keeps_its_sign():
    for alpha, sigma, source, target in [(0.0, 1.0, "eps", "x0"), (1.0, 0.0, "x0", "eps")]:
        at_0 = objectives.convert(OTHER, X0, alpha, sigma, source, target)
        alpha, sigma = max(alpha, objectives.FLOOR), max(sigma, objectives.FLOOR)
        at_floor = objectives.convert(OTHER, X0, alpha, sigma, source, target)
        np.testing.assert_allclose(at_0, at_floor, rtol=1e-6)


def test_corrupt_adds_alpha_of_the_image_and_sigma_of_the_noise():
    x_t = objectives.corrupt(X0, NOISE, T_B, schedules.make_schedule("flow"))
    np.testing.assert_allclose(x_t[3], 0.3 * X0[3] + 0.7 * NOISE[3], atol=1e-6)
    with pytest.raises(ValueError, match="the same shape"):
        objectives.corrupt(X0, NOISE[:1], T_B, schedules.make_schedule("flow"))
    with pytest.raises(ValueError, match="first dimension"):
        objectives.corrupt(X0, NOISE, T_B[:1], schedules.make_schedule("flow"))


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
@pytest.mark.parametrize("loss_view", ["", *objectives.VIEWS])
@pytest.mark.parametrize("prediction", objectives.VIEWS)
def test_the_loss_is_0_at_the_truth_and_nowhere_else(schedule, prediction, loss_view):
    config = ObjectiveConfig(schedule=schedule, prediction=prediction, loss_view=loss_view)
    t_B = jnp.array([0.0, 0.02, 0.3, 0.7, 0.98, 1.0])
    pred = truth(prediction, X0, NOISE, *alpha_sigma(schedule, t_B))
    np.testing.assert_allclose(objectives.loss(config, pred, X0, NOISE, t_B), 0, atol=1e-8)
    inside = slice(1, -1)  # where alpha or sigma is 0, some views hold nothing of x0 or of eps
    assert (objectives.loss(config, pred + 0.1, X0, NOISE, t_B)[inside] > 0).all()


def test_the_default_loss_is_the_plain_mean_squared_eps_error_in_f32():
    pred, x0, noise = (x.astype(jnp.bfloat16) for x in (OTHER, X0, NOISE))
    loss_B = objectives.loss(ObjectiveConfig(), pred, x0, noise, T_B)
    assert loss_B.dtype == jnp.float32
    expected = mean((pred.astype(jnp.float32) - noise.astype(jnp.float32)) ** 2)
    np.testing.assert_allclose(loss_B, expected, rtol=1e-6)


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
@pytest.mark.parametrize("prediction, loss_view", PAIRS)
def test_a_loss_view_is_the_error_after_conversion(schedule, prediction, loss_view):
    config = ObjectiveConfig(schedule=schedule, prediction=prediction, loss_view=loss_view)
    alpha, sigma = alpha_sigma(schedule, T_B)
    x_t = objectives.corrupt(X0, NOISE, T_B, schedules.make_schedule(schedule))
    converted = objectives.convert(OTHER, x_t, alpha, sigma, prediction, loss_view)
    expected = mean((converted - truth(loss_view, X0, NOISE, alpha, sigma)) ** 2)
    np.testing.assert_allclose(objectives.loss(config, OTHER, X0, NOISE, T_B), expected, rtol=1e-3)


def test_jit_clips_the_denominator_of_prediction_and_target():
    config = ObjectiveConfig(schedule="flow", prediction="x0", loss_view="flow")
    t_B = jnp.array([0.0, 0.01, 0.04, 0.06, 0.5, 1.0])
    x_t = objectives.corrupt(X0, NOISE, t_B, schedules.make_schedule("flow"))
    clipped = schedules.expand(jnp.maximum(t_B, 0.05))
    expected = mean(((x_t - OTHER) / clipped - (x_t - X0) / clipped) ** 2)
    np.testing.assert_allclose(objectives.loss(config, OTHER, X0, NOISE, t_B), expected, rtol=1e-4)


@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
@pytest.mark.parametrize("prediction", objectives.VIEWS)
def test_min_snr_weighs_the_x0_error_alike_in_every_view(schedule, prediction):
    config = ObjectiveConfig(schedule=schedule, prediction=prediction, weighting="min_snr")
    alpha, sigma = alpha_sigma(schedule, T_B)
    x_t = objectives.corrupt(X0, NOISE, T_B, schedules.make_schedule(schedule))
    x0_hat = X0 + OTHER
    pred = objectives.convert(x0_hat, x_t, alpha, sigma, "x0", prediction)
    snr_B = ((alpha / sigma) ** 2).reshape(-1)
    assert (snr_B > 5).any() and (snr_B < 5).any()
    np.testing.assert_allclose(
        objectives.loss(config, pred, X0, NOISE, T_B),
        jnp.minimum(snr_B, 5) * mean(OTHER**2),
        rtol=1e-3,
    )


def test_min_snr_has_its_limits_at_the_ends_of_flow():
    def weight(prediction):
        config = ObjectiveConfig(schedule="flow", prediction=prediction, weighting="min_snr")
        pred = truth(prediction, X0[:2], NOISE[:2], *alpha_sigma("flow", jnp.array([0.0, 1.0]))) + 1
        return objectives.loss(config, pred, X0[:2], NOISE[:2], jnp.array([0.0, 1.0]))

    np.testing.assert_allclose(weight("x0"), [5, 0], atol=1e-5)
    np.testing.assert_allclose(weight("eps"), [0, 1], atol=1e-5)


def test_eq7_runs_from_5000_at_the_first_level_to_25_at_the_last():
    config = ObjectiveConfig(weighting="eq7")
    loss_B = objectives.loss(config, NOISE[:2] + 1, X0[:2], NOISE[:2], jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(loss_B, [5000, 25], rtol=1e-5)


@pytest.mark.parametrize("prediction", objectives.VIEWS)
def test_to_x0_finds_the_image_in_any_prediction(prediction):
    config = ObjectiveConfig(prediction=prediction)
    x_t = objectives.corrupt(X0, NOISE, T_B, schedules.make_schedule("linear"))
    pred = truth(prediction, X0, NOISE, *alpha_sigma("linear", T_B))
    np.testing.assert_allclose(objectives.to_x0(config, pred, x_t, T_B), X0, atol=1e-4)
    assert objectives.to_x0(config, pred.astype(jnp.bfloat16), x_t, T_B).dtype == jnp.float32


def test_uniform_time_fills_the_unit_interval_evenly():
    t_B = objectives.sample_time(ObjectiveConfig("flow"), KEYS_B)
    counts, _ = np.histogram(t_B, bins=10, range=(0, 1))
    assert counts.sum() == 20_000 and np.abs(counts - 2000).max() < 5 * np.sqrt(2000)


def test_uniform_time_visits_every_level_of_a_chain_as_often():
    u = np.arange(50_000) / 50_000
    index = schedules.make_schedule("linear").visited(u) * 999
    np.testing.assert_allclose(index, index.round(), atol=1e-9)
    np.testing.assert_array_equal(np.bincount(index.round().astype(int)), 50)
    t_B = objectives.sample_time(ObjectiveConfig("linear"), KEYS_B)
    np.testing.assert_allclose(t_B * 999, (t_B * 999).round(), atol=1e-3)


def test_logit_normal_time_has_the_mean_and_spread_asked_for():
    config = ObjectiveConfig("flow", time="logit_normal", time_mean=0.8, time_std=0.5)
    t_B = objectives.sample_time(config, KEYS_B)
    logit_B = jax.scipy.special.logit(t_B)
    assert float(logit_B.mean()) == pytest.approx(0.8, abs=0.02)
    assert float(logit_B.std()) == pytest.approx(0.5, abs=0.02)
    assert float((t_B > 0.5).mean()) > 0.9  # a positive mean is toward noise


@pytest.mark.parametrize("time", objectives.TIMES)
def test_a_time_shift_moves_each_draw_toward_noise(time):
    plain_B, shifted_B = (
        objectives.sample_time(ObjectiveConfig("flow", time=time, time_shift=s), KEYS_B)
        for s in (1, 3)
    )
    np.testing.assert_allclose(shifted_B, 3 * plain_B / (1 + 2 * plain_B), rtol=1e-6)


@pytest.mark.parametrize("time", objectives.TIMES)
def test_the_time_of_a_sample_is_a_function_of_its_key_alone(time):
    config = ObjectiveConfig(time=time)
    whole_B = objectives.sample_time(config, KEYS_B[:8])
    np.testing.assert_array_equal(objectives.sample_time(config, KEYS_B[5:8]), whole_B[5:])
    assert len(set(whole_B.tolist())) == 8


@pytest.mark.parametrize(
    "field, name, known",
    [
        ("schedule", "flwo", "flow, .*linear"),
        ("prediction", "epsilon", "eps, flow, v, x0"),
        ("loss_view", "floww", "flow, eps, v, x0"),
        ("weighting", "min-snr", "min_snr, eq7, none"),
        ("time", "lognormal", "logit_normal, uniform"),
    ],
)
def test_an_unknown_name_lists_the_known_ones(field, name, known):
    with pytest.raises(errors.InputError, match=f"unknown {field} '{name}'; known: {known}"):
        ObjectiveConfig(**{field: name})


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"weighting": "eq7", "schedule": "flow"}, "use schedule 'linear'"),
        ({"weighting": "eq7", "prediction": "v"}, "set loss_view to 'eps'"),
        ({"weighting": "min_snr", "loss_view": "v"}, "leave loss_view empty"),
        ({"time_shift": 0.0}, "time_shift 0.0 must be above 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(errors.InputError, match=message):
        ObjectiveConfig(**settings)
