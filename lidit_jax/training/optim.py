"""The optimizer: AdamW as in the paper (section 4.1), or Muon; warm-up, decay, clipping."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from optax import contrib

from lidit_jax import errors

MOST_STEPS = 2**31 - 1  # the state's step counter is an int32


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Which of `OPTIMIZERS`, and its settings; see configs/base.py."""

    name: str
    learning_rate: float
    warmup_steps: int
    decay: str
    b1: float
    b2: float
    weight_decay: float
    clip_norm: float
    ema: float

    def __post_init__(self):
        for name in ("learning_rate", "warmup_steps", "weight_decay"):
            errors.check_range(f"optim.{name}", getattr(self, name), 0)
        errors.check_range("optim.warmup_steps", self.warmup_steps, -math.inf, MOST_STEPS)
        for name in ("b1", "b2"):
            errors.check_range(f"optim.{name}", getattr(self, name), 0, 0.999999)
        errors.check_range("optim.ema", self.ema, 0, 1)
        if self.clip_norm <= 0:
            raise errors.InputError(
                f"optim.clip_norm is {self.clip_norm}, which leaves no gradient; use 1, or a large "
                f"number for no clipping"
            )
        if self.name not in OPTIMIZERS:
            raise errors.unknown_name("optim.name", self.name, OPTIMIZERS)
        if self.decay not in ("constant", "linear", "cosine"):
            raise errors.unknown_name("optim.decay", self.decay, ("constant", "linear", "cosine"))


def learning_rate(config: OptimConfig, steps: int) -> optax.Schedule:
    """Linear warm-up, then constant (the paper's), linear or cosine decay to zero at `steps`."""
    after = max(steps - config.warmup_steps, 1)
    peak = config.learning_rate
    decay = {
        "constant": optax.constant_schedule(peak),
        "linear": optax.linear_schedule(peak, 0.0, after),
        "cosine": optax.cosine_decay_schedule(peak, after),
    }[config.decay]
    warmup = optax.linear_schedule(peak / max(config.warmup_steps, 1), peak, config.warmup_steps)
    return optax.join_schedules([warmup, decay], [config.warmup_steps])


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformationExtraArgs:
    """Clips by global norm, then AdamW or Muon, with decoupled weight decay on kernels only.

    Its `update` also accepts the gradients' `norm`, if it is already known.
    """
    update = OPTIMIZERS[config.name](config, learning_rate(config, steps))
    return optax.chain(_clip(config.clip_norm), update)


def _adamw(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    return optax.adamw(rate, config.b1, config.b2, weight_decay=config.weight_decay, mask=_kernels)


def _muon(config: OptimConfig, rate: optax.Schedule) -> optax.GradientTransformation:
    """Returns Muon (arXiv 2502.16982), for the same learning rates as AdamW.

    It orthogonalises the update of every matrix, including the first and last layers, at about the
    size of AdamW's update; non-matrices use AdamW with Nesterov momentum.
    """
    return contrib.muon(
        rate, beta=config.b1, weight_decay=config.weight_decay, consistent_rms=0.2,
        adam_b1=config.b1, adam_b2=config.b2,
        muon_weight_dimension_numbers=_matrices,
    )  # fmt: skip


OPTIMIZERS = {"adamw": _adamw, "muon": _muon}


def _clip(most: float) -> optax.GradientTransformationExtraArgs:
    """Like `optax.clip_by_global_norm`, which would recompute the norm."""

    def update(grads, state, params=None, *, norm=None, **_):
        norm = optax.tree.norm(grads) if norm is None else norm
        clipped = jax.tree.map(lambda g: jnp.where(norm < most, g, g / norm * most), grads)
        return clipped, state

    return optax.GradientTransformationExtraArgs(optax.init_empty_state, update)


def _kernels(params: nnx.State) -> nnx.State:
    """Returns which parameters are decayed: no biases, no norm scales, which 0 would silence."""
    flat = nnx.to_flat_state(params)
    return nnx.from_flat_state(
        [(path, param.replace(path[-1] == "kernel")) for path, param in flat]
    )


def _matrices(params: nnx.State) -> nnx.State:
    """Returns which axes of each kernel are matrix rows and which are columns; None for the rest.

    A convolution's taps are rows; stacked layers are separate matrices, and so are keys and values.
    A block's whole modulation is one matrix.
    """
    flat = nnx.to_flat_state(params)
    return nnx.from_flat_state(
        [(path, param.replace(_matrix(path, param))) for path, param in flat]
    )


def _matrix(path: tuple, param: nnx.Variable) -> contrib.MuonDimensionNumbers | None:
    if path[-1] != "kernel":
        return None
    axes = param.get_metadata("axes")
    first = int(axes[0] == "layers")
    rows = axes.index("embed") + 1 if "embed" in axes[:-1] else len(axes) - 1
    columns = axes.index("heads") if "heads" in axes[rows:] else rows
    outputs = [i for i in range(columns, len(axes)) if axes[i] != "parts"]
    return contrib.MuonDimensionNumbers(tuple(range(first, rows)), tuple(outputs))


def ema_decay(config: OptimConfig, updates, carried: bool = False):
    """Returns the EMA's decay after so many updates: min(ema, (1 + updates) / (10 + updates)).

    So a short run's average is not dominated by its initialisation (as in
    tf.train.ExponentialMovingAverage). carried: the average comes from another run, not an
    initialisation, and keeps its weight: the decay is always `ema`.
    """
    if carried:
        return config.ema
    updates = updates.astype("float32")
    return ((1 + updates) / (10 + updates)).clip(max=config.ema)
