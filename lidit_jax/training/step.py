"""One update as one jitted, sharded program: loss, gradients, clipping, the optimizer, EMA.

A second program computes only the loss, for held-out data.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from lidit_jax import digests, rng, sharding
from lidit_jax.batch import Batch
from lidit_jax.training import guard as guards
from lidit_jax.training import optim
from lidit_jax.training.config import Config
from lidit_jax.training.state import TrainState, shardings_of
from lidit_jax.training.tasks import Task

Step = Callable[[TrainState, Batch], tuple[TrainState, dict[str, jax.Array]]]
Score = Callable[[TrainState, Batch], tuple[jax.Array, dict[str, jax.Array]]]
HELD_OUT = "held_out_"  # prefix of the names of held-out metrics


def draws(config: Config, step: int | jax.Array) -> jax.Array:
    """Returns the random key of each sample of the batch drawn after `step` steps: keys [B]."""
    base = rng.key(config.seed, "train", step)
    return rng.per_sample(base, jnp.arange(config.train.batch_size))


def micro_batches(tree: Any, count: int) -> Any:
    """Returns arrays [B, ...] as [count, B / count, ...], to scan over.

    Each micro-batch takes every count-th sample, so that no sample moves to another device.
    """
    return jax.tree.map(
        lambda a: a.reshape(a.shape[0] // count, count, *a.shape[1:]).swapaxes(0, 1), tree
    )


def losses(task: Task, model: nnx.Module, batch: Batch, keys_B: jax.Array, mesh: Mesh):
    """Returns `task.loss`: each sample's loss, and other metrics to log. To be jitted."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `sharding.split_batch`
        return task.loss(model, batch, keys_B)


def make_step(
    task: Task,
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformationExtraArgs,
    config: Config,
    mesh: Mesh,
    like: TrainState,
) -> Step:
    """Returns the jitted `step(state, batch) -> (state, metrics)`; the input state is donated.

    Metrics are f32 scalars: "loss" and the task's own (means over the batch), "grad_norm" (before
    clipping) and "learning_rate"; int32 "skipped", the number of steps skipped in a row up to this
    one; and uint32 [2] digests of the global "batch" and the random keys of its "noise". On CPUs,
    where digests take a hundredth of the quickstart's step, they are zeros at steps not logged.
    A step that `guard` rejects changes only the number of steps (and the guard's own count).
    Gradients are averaged over `train.accumulate` micro-batches, in f32.
    """
    accumulate = config.train.accumulate
    rate = optim.learning_rate(config.optim, config.train.steps)
    carried = bool(config.train.init_from)
    branch = sharding.platform(mesh.abstract_mesh) == "cpu"

    def mean_loss(params, constants, batch, keys_B):
        scored = losses(task, nnx.merge(graphdef, params, constants), batch, keys_B, mesh)
        return jax.tree.map(jnp.mean, scored)

    def gradients(params, constants, batch, keys_B):
        scored = jax.value_and_grad(mean_loss, has_aux=True)
        if accumulate == 1:
            return scored(params, constants, batch, keys_B)

        def add(total, micro):
            return jax.tree.map(jnp.add, total, scored(params, constants, *micro)), None

        micros = micro_batches((batch, keys_B), accumulate)
        one = jax.tree.map(lambda a: a[0], micros)
        zero = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(scored, params, constants, *one)
        )
        total, _ = jax.lax.scan(add, zero, micros)
        return jax.tree.map(lambda a: a / accumulate, total)

    def logged_drawn(step, batch, keys_B):
        def found():
            keys = jax.random.key_data(keys_B)
            return {"batch": digests.of_all(batch), "noise": digests.digest(keys)}

        if not branch:
            return found()
        logged = (step % config.train.log_every == 0) | (step == config.train.steps)
        nothing = {name: jnp.zeros(2, jnp.uint32) for name in ("batch", "noise")}
        return jax.lax.cond(logged, found, lambda: nothing)

    def step(state: TrainState, batch: Batch):
        keys_B = draws(config, state.step)
        (loss, parts), grads = gradients(state.params, state.constants, batch, keys_B)
        judged = {"loss": loss, "grad_norm": optax.tree.norm(grads)}
        accepted = guards.accepts(config.guard, state.guard, **judged)
        guard = guards.after(config.guard, state.guard, accepted, **judged)

        def update(params, ema, opt_state, given):
            grads, norm = given
            updates, opt_state = optimizer.update(grads, opt_state, params, norm=norm)
            params = optax.apply_updates(params, updates)
            decay = optim.ema_decay(config.optim, state.guard.updates, carried)
            ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, ema, params)
            return params, ema, opt_state

        before = state.params, state.ema, state.opt_state
        params, ema, opt_state = guards.unless_skipped(
            accepted, update, before, (grads, judged["grad_norm"]), branch
        )
        learning_rate = rate(state.guard.updates)
        metrics = judged | parts | {"learning_rate": learning_rate, "skipped": guard.in_a_row}
        metrics |= logged_drawn(state.step + 1, batch, keys_B)
        return TrainState(state.step + 1, params, ema, state.constants, opt_state, guard), metrics

    return jax.jit(
        step,
        in_shardings=(shardings_of(like), sharding.batch_sharding(mesh)),
        out_shardings=(shardings_of(like), sharding.replicated(mesh)),
        donate_argnums=0,
    )


def make_score(task: Task, graphdef: nnx.GraphDef, mesh: Mesh, like: TrainState) -> Score:
    """Returns the jitted `score(state, batch) -> (rows, metrics)`, replicated on every device.

    rows are the batch's; metrics are f32 [B]: the EMA's loss, and the task's own. A sample's time
    and noise depend on its row alone: they are the same at every step and in every run, whatever
    its seed, batch size and mesh.
    """
    task = task.scoring()

    def score(state: TrainState, batch: Batch):
        keys_B = rng.per_sample(rng.key(0, "held out"), batch.row_B)
        model = nnx.merge(graphdef, state.ema, state.constants)
        loss_B, parts = losses(task, model, batch, keys_B, mesh)
        told = {"loss": loss_B} | parts
        return batch.row_B, {HELD_OUT + name: value_B for name, value_B in told.items()}

    return jax.jit(
        score,
        in_shardings=(shardings_of(like), sharding.batch_sharding(mesh)),
        out_shardings=sharding.replicated(mesh),
    )
