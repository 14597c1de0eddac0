"""Rates and averages by hand; Muon's update of every matrix is orthogonal."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax.training import optim
from lidit_jax.training.config import parse
from tests.tiny import load_config

CONFIG = parse(load_config("shapes", "smoke")).optim
KERNELS = {  # the axes of a kernel, its shape, and that of the matrices in it: (layers, rows, columns)
    "linear": (("embed", "mlp"), (12, 20), (1, 12, 20)),
    "pixels": ((None, "embed"), (12, 20), (1, 12, 20)),
    "conv": ((None, None, "embed", "embed_out"), (3, 3, 6, 10), (1, 54, 10)),
    "heads": (("layers", "embed", None, "heads", None), (2, 12, 2, 3, 4), (2, 12, 24)),
    "out": (("layers", "heads", None, "embed"), (2, 3, 4, 10), (2, 12, 10)),
}


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


def first_update(name, axes, shape):
    """Returns what the optimizer adds to a random parameter at its first step, at full rate."""
    config = dataclasses.replace(
        CONFIG, name="muon", learning_rate=0.5, warmup_steps=0, clip_norm=1e9
    )
    optimizer = optim.make_optimizer(config, 10)
    params = nnx.State({"layer": {name: nnx.Param(jnp.zeros(shape), axes=axes)}})
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(0), p.shape), params)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    return np.asarray(updates["layer"][name][...])


@pytest.mark.parametrize("kind", KERNELS)
def test_muons_update_of_a_matrix_is_orthogonal_and_of_adamws_size(kind):
    axes, shape, matrices = KERNELS[kind]
    update = first_update("kernel", axes, shape).reshape(matrices)
    found = np.linalg.svd(update, compute_uv=False)
    wanted = 0.5 * 0.2 * np.sqrt(max(matrices[1:]))  # arXiv 2502.16982, section 2.2
    assert found.min() > 0.6 * wanted and found.max() < 1.3 * wanted


@pytest.mark.parametrize(
    ("name", "axes", "shape"),
    [("bias", ("heads", None), (3, 4)), ("scale", ("layers", None), (2, 4))],
)
def test_muon_leaves_what_is_no_matrix_to_adamw(name, axes, shape):
    update = np.abs(first_update(name, axes, shape))
    np.testing.assert_allclose(update, update.mean(), rtol=1e-4)  # at first, the gradient's sign
