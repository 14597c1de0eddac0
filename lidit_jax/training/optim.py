"""The optimizer: AdamW as in the paper (section 4.1: learning rate 1e-4), or Muon; warm-up, decay,
clipping."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from optax import contrib

from lidit_jax.training.config import OptimConfig


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
    Muon (arXiv 2502.16982) orthogonalises the update of every matrix, including the first and last
    layers, at about the size of AdamW's update; non-matrices use AdamW with Nesterov momentum. The
    same learning rate therefore serves both.
    """
    rate, decay = learning_rate(config, steps), config.weight_decay
    if config.name == "adamw":
        update = optax.adamw(rate, config.b1, config.b2, weight_decay=decay, mask=_kernels)
    else:
        update = contrib.muon(
            rate, beta=config.b1, weight_decay=decay, consistent_rms=0.2,
            adam_b1=config.b1, adam_b2=config.b2,
            muon_weight_dimension_numbers=_matrices,
        )  # fmt: skip
    return optax.chain(_clip(config.clip_norm), update)


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
