"""What the network predicts, at which times it is trained, and how its error is scored.

Given x_t = alpha x0 + sigma eps, a view is a pair of factors (p, q) that names the quantity
p x0 + q eps. A view and x_t are two equations in (x0, eps), with determinant
alpha q - sigma p; solving them converts any view into any other.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from lidit_jax import errors, rng
from lidit_jax.diffusion import schedules

VIEWS: dict[str, Callable] = {  # name -> (alpha, sigma) -> (p, q)
    "x0": lambda alpha, sigma: (1.0, 0.0),
    "eps": lambda alpha, sigma: (0.0, 1.0),
    "v": lambda alpha, sigma: (-sigma, alpha),  # arXiv 2202.00512
    "flow": lambda alpha, sigma: (-1.0, 1.0),  # arXiv 2209.03003
}

# Only two divisions can blow up: from x0 (by sigma) and from eps (by alpha). The floor lies below
# every alpha and sigma of the discrete schedules, so it changes nothing there; for flow it acts
# within 0.001 of an end, where f32 rounding of x_t is already amplified to 1e-4.
FLOOR = 1e-3


def _determinant(view: str, alpha: jax.Array, sigma: jax.Array) -> jax.Array:
    p, q = VIEWS[view](alpha, sigma)
    return alpha * q - sigma * p


def _divisor(view: str, alpha: jax.Array, sigma: jax.Array, floor: float = FLOOR) -> jax.Array:
    """Returns the view's determinant, kept `floor` away from 0, with the sign of q - p."""
    p, q = VIEWS[view](alpha, sigma)
    return jnp.copysign(jnp.maximum(jnp.abs(alpha * q - sigma * p), floor), q - p)


def convert(
    pred: jax.Array, x_t: jax.Array, alpha: jax.Array, sigma: jax.Array, source: str, target: str
) -> jax.Array:
    """Converts a prediction from the `source` view to the `target` view (names of `VIEWS`).

    alpha and sigma broadcast against pred and x_t, and need not satisfy alpha^2 + sigma^2 = 1.
    """
    if source == target:
        return pred
    p, q = VIEWS[source](alpha, sigma)
    m, n = VIEWS[target](alpha, sigma)
    mixed = _determinant(target, alpha, sigma) * pred + (m * q - n * p) * x_t
    return mixed / _divisor(source, alpha, sigma)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The objective; by default the paper's (arXiv 2406.11831), DDPM's mean ||eps - eps'||^2.

    schedule: a name of `schedules.SCHEDULES`.
    prediction: the network's output, a name of `VIEWS`.
    loss_view: the view in which the squared error is taken; "" is the prediction's own. Prediction
      x0 with loss_view flow is the loss of JiT (arXiv 2511.13720).
    sigma_floor: least sigma to divide by when scoring an x0 prediction in another view (JiT: 0.05).
    weighting: a name of `WEIGHTINGS`.
    min_snr_gamma: the cap on the signal-to-noise ratio for min_snr.
    time: the distribution of t, a name of `TIMES`.
    time_mean, time_std: of logit(t), for logit_normal; a positive mean favours noise.
    time_shift: `schedules.shift` of t; > 1 favours noise.
    """

    schedule: str = "linear"
    prediction: str = "eps"
    loss_view: str = ""
    sigma_floor: float = 0.05
    weighting: str = "none"
    min_snr_gamma: float = 5.0
    time: str = "uniform"
    time_mean: float = 0.0
    time_std: float = 1.0
    time_shift: float = 1.0

    def __post_init__(self):
        schedule = schedules.make_schedule(self.schedule)
        for kind, name, known in (
            ("prediction", self.prediction, VIEWS),
            ("loss_view", self.loss_view or self.prediction, VIEWS),
            ("weighting", self.weighting, WEIGHTINGS),
            ("time", self.time, TIMES),
        ):
            if name not in known:
                raise errors.unknown_name(kind, name, known)
        for field in ("sigma_floor", "min_snr_gamma", "time_std", "time_shift"):
            if getattr(self, field) <= 0:
                raise errors.InputError(f"{field} {getattr(self, field)} must be above 0")
        if self.weighting == "min_snr" and self.loss_view:
            raise errors.InputError(
                f"weighting 'min_snr' scores the x0 error whatever the view, so loss_view "
                f"{self.loss_view!r} would change nothing; leave loss_view empty"
            )
        if self.weighting == "eq7" and not isinstance(schedule, schedules.Discrete):
            raise errors.InputError(
                f"weighting 'eq7' needs the betas of a DDPM chain, and schedule {self.schedule!r} "
                f"has none; use schedule 'linear' or 'scaled_linear', or weighting 'none'"
            )
        if self.weighting == "eq7" and (self.loss_view or self.prediction) != "eps":
            raise errors.InputError(
                f"weighting 'eq7' is a factor on the eps error, and the loss is taken in "
                f"{self.loss_view or self.prediction!r}; set loss_view to 'eps'"
            )


def _no_weight(config: ObjectiveConfig, t_B: jax.Array) -> jax.Array:
    return jnp.ones_like(t_B)


def _min_snr(config: ObjectiveConfig, t_B: jax.Array) -> jax.Array:
    """min(SNR, gamma) on the squared x0 error, SNR = (alpha / sigma)^2 (arXiv 2303.09556).

    An error e in x0 is an error of size |determinant / sigma| e in a view, so the view's weight is
    min(SNR, gamma) (sigma / determinant)^2, written without dividing by sigma.
    """
    alpha_B, sigma_B = schedules.make_schedule(config.schedule).alpha_sigma(t_B)
    alpha_B, sigma_B = jnp.maximum(alpha_B, FLOOR), jnp.maximum(sigma_B, FLOOR)
    determinant_B = _determinant(config.prediction, alpha_B, sigma_B)
    return jnp.minimum(alpha_B**2, config.min_snr_gamma * sigma_B**2) / determinant_B**2


def _eq7(config: ObjectiveConfig, t_B: jax.Array) -> jax.Array:
    """1 / (2 sigma_t^2) of arXiv 2406.11831, eq. 7, with sigma_t^2 = beta_t."""
    return 1 / (2 * schedules.make_schedule(config.schedule).beta(t_B))


WEIGHTINGS: dict[str, Callable] = {"none": _no_weight, "min_snr": _min_snr, "eq7": _eq7}

TIMES: dict[str, Callable] = {
    "uniform": lambda config, keys_B: rng.uniform(keys_B),
    "logit_normal": lambda config, keys_B: jax.nn.sigmoid(  # arXiv 2403.03206, sec. 3.1
        config.time_mean + config.time_std * rng.normal(keys_B, ())
    ),
}


def sample_time(config: ObjectiveConfig, keys_B: jax.Array) -> jax.Array:
    """Returns training times t_B, f32 in [0, 1]; row k depends on key k alone.

    On a discrete schedule each is a time that samplers can visit; uniform makes all equally likely.
    """
    u_B = schedules.shift(TIMES[config.time](config, keys_B), config.time_shift)
    return schedules.make_schedule(config.schedule).visited(u_B)


def corrupt(
    x0_BxHxWxC: jax.Array, noise_BxHxWxC: jax.Array, t_B: jax.Array, schedule: schedules.Schedule
) -> jax.Array:
    """Returns x_t = alpha(t) x0 + sigma(t) noise (DDPM, arXiv 2006.11239, eq. 4), f32.

    x0 is in model units (unit variance per channel); t is in [0, 1].
    Raises ValueError if the shapes differ.
    """
    if x0_BxHxWxC.shape != noise_BxHxWxC.shape or x0_BxHxWxC.shape[:1] != t_B.shape:
        raise ValueError(
            f"x0 {x0_BxHxWxC.shape} and noise {noise_BxHxWxC.shape} must have the same shape, "
            f"and t {t_B.shape} their first dimension"
        )
    alpha_B, sigma_B = schedule.alpha_sigma(t_B)
    return schedules.expand(alpha_B) * x0_BxHxWxC + schedules.expand(sigma_B) * noise_BxHxWxC


def loss(
    config: ObjectiveConfig,
    pred_BxHxWxC: jax.Array,
    x0_BxHxWxC: jax.Array,
    noise_BxHxWxC: jax.Array,
    t_B: jax.Array,
) -> jax.Array:
    """Returns the weighted mean squared error of each sample in `config.loss_view`, f32 [B].

    Prediction and truth share x_t, so converting both to the loss's view and subtracting is
    the same as scaling their difference by a ratio of determinants.
    """
    alpha_B, sigma_B = schedules.make_schedule(config.schedule).alpha_sigma(t_B)
    p, q = VIEWS[config.prediction](schedules.expand(alpha_B), schedules.expand(sigma_B))
    error = pred_BxHxWxC.astype(jnp.float32) - (p * x0_BxHxWxC + q * noise_BxHxWxC)
    loss_B = jnp.mean(error**2, axis=(1, 2, 3))
    if config.loss_view not in ("", config.prediction):
        floor = config.sigma_floor if config.prediction == "x0" else FLOOR
        determinant_B = _determinant(config.loss_view, alpha_B, sigma_B)
        loss_B *= (determinant_B / _divisor(config.prediction, alpha_B, sigma_B, floor)) ** 2
    return WEIGHTINGS[config.weighting](config, t_B) * loss_B


def to_x0(
    config: ObjectiveConfig, pred_BxHxWxC: jax.Array, x_t_BxHxWxC: jax.Array, t_B: jax.Array
) -> jax.Array:
    """Converts the network's output to the clean image it implies, f32."""
    alpha_B, sigma_B = schedules.make_schedule(config.schedule).alpha_sigma(t_B)
    return convert(
        pred_BxHxWxC.astype(jnp.float32),
        x_t_BxHxWxC,
        schedules.expand(alpha_B),
        schedules.expand(sigma_B),
        config.prediction,
        "x0",
    )
