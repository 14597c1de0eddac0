"""Rates and averages by hand; Muon's update of every matrix is orthogonal."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from lidit_jax import sharding
from lidit_jax.training import optim, state
from lidit_jax.training.config import parse
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests.tiny import load_config

CONFIG = parse(load_config("shapes", "smoke")).optim
KERNELS = {  # the axes of a kernel, its shape, and how an einsum and a shape make matrices of it
    "linear": (("embed", "mlp"), (12, 20), "ij->ij", (1, 12, 20)),
    "pixels": ((None, "embed"), (12, 20), "ij->ij", (1, 12, 20)),
    "conv": ((None, None, "embed", "embed_out"), (3, 3, 8, 10), "yxij->yxij", (1, 72, 10)),
    "heads": (("layers", "embed", "heads", None), (2, 12, 4, 3), "ldnk->ldnk", (2, 12, 12)),
    "keys and values": (
        ("layers", "embed", None, "heads", None), (2, 12, 2, 4, 5), "ldcnk->lcdnk", (4, 12, 20)
    ),
    "out": (("layers", "heads", None, "embed"), (2, 4, 3, 10), "lnkd->lnkd", (2, 12, 10)),
}  # fmt: skip


def test_learning_rate_by_hand():
    config = dataclasses.replace(CONFIG, learning_rate=1.0, warmup_steps=4)
    rates = {
        d: optim.learning_rate(dataclasses.replace(config, decay=d), 8)
        for d in ("constant", "linear", "cosine")
    }
    assert [float(rates["constant"](i)) for i in (0, 2, 4, 8)] == pytest.approx([0.25, 0.625, 1, 1])
    assert [float(rates["linear"](i)) for i in (4, 6, 8)] == pytest.approx([1, 0.5, 0])
    assert [float(rates["cosine"](i)) for i in (4, 6, 8)] == pytest.approx([1, 0.5, 0])


def test_ema_starts_fast_and_ends_at_its_decay():
    config = CONFIG
    assert float(optim.ema_decay(config, jnp.int32(0))) == pytest.approx(0.1)
    assert float(optim.ema_decay(config, jnp.int32(10**7))) == pytest.approx(config.ema)


@pytest.mark.parametrize("norm", [0.5, 1.0, 40.0])
def test_gradients_are_clipped_as_optax_clips_them_whether_or_not_their_norm_is_given(norm):
    grads = {"a": jax.random.normal(jax.random.key(0), (7, 5)), "b": jnp.arange(3.0)}
    grads = jax.tree.map(lambda g: g * norm / optax.tree.norm(grads), grads)
    wanted, _ = optax.clip_by_global_norm(1.0).update(grads, optax.EmptyState())
    clip = optim._clip(1.0)
    for more in ({}, {"norm": optax.tree.norm(grads)}):
        clipped, _ = clip.update(grads, clip.init(grads), **more)
        jax.tree.map(np.testing.assert_array_equal, clipped, wanted)
    halved, _ = clip.update(grads, clip.init(grads), norm=jnp.float32(2.0))  # it is what is used
    jax.tree.map(np.testing.assert_allclose, halved, jax.tree.map(lambda g: g / 2, grads))


def updates(config, name, axes, shape, count=1):
    """Returns what the optimizer adds to a random parameter at each of its first steps, at full rate."""
    config = dataclasses.replace(config, learning_rate=0.5, warmup_steps=0, clip_norm=1e9)
    optimizer = optim.make_optimizer(config, 1000)
    value, *grads = jax.random.normal(jax.random.key(0), (count + 1, *shape))
    params = nnx.State({"layer": {name: nnx.Param(value, axes=axes)}})
    state, found = optimizer.init(params), []
    for grad in grads:
        given = jax.tree.map(lambda _, grad=grad: grad, params)
        update, state = optimizer.update(given, state, params)
        found.append(np.asarray(update["layer"][name][...]))
    return found


MUON = dataclasses.replace(CONFIG, name="muon", b1=0.9, b2=0.99)


@pytest.mark.parametrize("kind", KERNELS)
def test_muons_update_of_a_matrix_is_orthogonal_and_of_adamws_size(kind):
    axes, shape, order, matrices = KERNELS[kind]
    update = np.einsum(order, updates(MUON, "kernel", axes, shape)[0]).reshape(matrices)
    found = np.linalg.svd(update, compute_uv=False)
    wanted = 0.5 * 0.2 * np.sqrt(max(matrices[1:]))  # arXiv 2502.16982, section 2.2
    assert found.min() > 0.6 * wanted and found.max() < 1.3 * wanted


def test_matrices_that_lie_across_devices_are_orthogonalised_whole():
    params = nnx.State(
        {
            kind: {"kernel": nnx.Param(jnp.zeros(KERNELS[kind][1]), axes=KERNELS[kind][0])}
            for kind in KERNELS
        }
    )
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    optimizer = optim.make_optimizer(dataclasses.replace(MUON, warmup_steps=0), 10)

    def update(grads, params):
        return optimizer.update(grads, optimizer.init(params), params)[0]

    where = sharding.param_shardings(sharding.make_mesh((2, 2, 2)), params)
    split = jax.tree.map(jax.device_put, (grads, params), (where, where))
    assert len(jax.tree.leaves(split)[0].addressable_shards) == 8
    for one, eight in zip(
        jax.tree.leaves(update(grads, params)),
        jax.tree.leaves(jax.jit(update)(*split)),
        strict=True,
    ):
        np.testing.assert_allclose(eight, one, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "axes", "shape"),
    [("bias", ("heads", None), (3, 4)), ("scale", ("layers", None), (2, 4))],
)
def test_muon_leaves_what_is_no_matrix_to_adamw_with_nesterovs_momentum(name, axes, shape):
    config = dataclasses.replace(MUON, weight_decay=0.1)  # of kernels
    peer = optax.nadam(0.5, b1=0.9, b2=0.99)
    value, *grads = jax.random.normal(jax.random.key(0), (4, *shape))
    state = peer.init(value)
    for grad, found in zip(grads, updates(config, name, axes, shape, count=3), strict=True):
        wanted, state = peer.update(grad, state, value)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_kernels_alone_are_decayed(name):
    """By the learning rate times the decay, beside what the gradient does."""
    config = dataclasses.replace(MUON, name=name, weight_decay=0.1)
    still = dataclasses.replace(config, weight_decay=0.0)
    for leaf, axes, decayed in (
        ("kernel", ("embed", "mlp"), 0.05), ("bias", ("mlp",), 0), ("scale", (None,), 0), ("scale_E", (None,), 0),
    ):  # fmt: skip
        shape = (12, 20)[-len(axes) :]
        with_it, without = (updates(c, leaf, axes, shape, count=1)[0] for c in (config, still))
        value = jax.random.normal(jax.random.key(0), (2, *shape))[0]
        np.testing.assert_allclose(without - with_it, decayed * value, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("change", [{"b1": 0.5}, {"weight_decay": 0.1}])
def test_momentum_and_weight_decay_are_muons_too(change):
    one, other = (
        updates(c, "kernel", ("embed", "mlp"), (12, 20), count=2)[1]
        for c in (MUON, dataclasses.replace(MUON, **change))
    )
    assert np.abs(one - other).max() > 1e-2


def test_every_kernel_of_a_model_is_muons_and_nothing_else():
    config = parse(load_config("shapes_two_llms", "smoke"))
    encoders = tuple(dataclasses.replace(e, width=24, prefix_len=3) for e in config.encoders)
    task = diffusion_task(dataclasses.replace(config, encoders=encoders), (6, 6))
    _, params, _ = state.split(jax.eval_shape(lambda: task.init(nnx.Rngs(0))))
    optimizer = optim.make_optimizer(MUON, 10)
    halves = jax.eval_shape(optimizer.init, params)[1].inner_states
    muons, adams = (
        {
            path
            for path, _ in nnx.to_flat_state(params)
            if _has(halves[name].inner_state[0].mu, path)
        }
        for name in ("muon", "adam")
    )
    assert muons == {path for path, _ in nnx.to_flat_state(params) if path[-1] == "kernel"}
    assert adams == {path for path, _ in nnx.to_flat_state(params)} - muons


def _has(moments, path) -> bool:
    for key in path:
        moments = moments[key]
    return bool(jax.tree.leaves(moments))


def test_adamw_is_optaxs_with_the_configs_betas():
    config = dataclasses.replace(MUON, name="adamw", weight_decay=0.1)
    peer = optax.adamw(0.5, 0.9, 0.99, weight_decay=0.1)
    value, *grads = jax.random.normal(jax.random.key(0), (4, 12, 20))
    state, found = peer.init(value), updates(config, "kernel", ("embed", "mlp"), (12, 20), count=3)
    for grad, update in zip(grads, found, strict=True):
        wanted, state = peer.update(grad, state, value)
        np.testing.assert_allclose(update, wanted, rtol=1e-4, atol=1e-6)
