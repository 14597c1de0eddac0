"""The optimizer: AdamW with warm-up, decay and clipping (section 4.1: AdamW's learning rate 1e-4)."""

import optax

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


def make_optimizer(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Clipping by global norm, then AdamW with decoupled weight decay."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate(config, steps), config.b1, config.b2, weight_decay=config.weight_decay
        ),
    )


def ema_decay(config: OptimConfig, step):
    """The EMA's decay at `step`: min(ema, (1 + step) / (10 + step)), so that a short run's average
    is not dominated by its initialisation (as in tf.train.ExponentialMovingAverage)."""
    step = step.astype("float32")
    return ((1 + step) / (10 + step)).clip(max=config.ema)
