"""FLOPs by formula are those that XLA counts, and the paper's models need what they are said to need."""

import dataclasses

import jax
import pytest
from flax import nnx

from lidit_jax import errors, sharding
from lidit_jax.benchmarking import assumed, flops, plan, training
from lidit_jax.benchmarking.program import Step
from lidit_jax.models.conditioners import CONDITIONERS
from lidit_jax.training.config import parse
from tests.tiny import load_config

LENGTHS = assumed.Lengths(text=24, prefix=9)


def make_step(name="shapes_two_llms", lengths=LENGTHS, **model):
    c = load_config(name, "smoke")
    c.data.size = (64, 64)
    c.model.width, c.model.heads, c.model.depth, c.model.patch = 256, 4, 3, 4
    c.model.update({k: v for k, v in model.items() if k != "conditioner"})
    c.model.conditioner.update(model.get("conditioner", {}))
    config = assumed.measured(parse(c), lengths)
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    return Step(config, assumed.task(config, lengths), mesh)


@pytest.mark.parametrize(
    ("name", "conditioner"),
    [
        ("shapes_direct", {}),
        ("shapes", {}),
        ("shapes_two_llms", {}),
        ("shapes_two_llms", {"n_ltr": 3, "n_cr": 2}),
        ("shapes_two_llms", {"fusion": "concat"}),
        ("shapes_two_llms", {"n_ltr": 0, "gating": False}),
    ],
)
def test_the_formula_counts_what_xla_counts(name, conditioner):
    step = make_step(name, conditioner=conditioner)
    counted = plan.forward_flops(step)  # elementwise work too: 1 to 3% of a network this wide
    assert counted == pytest.approx(flops.total(flops.forward(step.task)), rel=0.03)


def test_the_last_refiner_leaves_the_instruction_out():
    """Of an instruction as long as the picture is large, so that XLA's count shows it."""
    for name in ("shapes", "shapes_two_llms"):
        step = make_step(name, assumed.Lengths(text=24, prefix=256))
        formula = flops.total(flops.forward(step.task))
        assert plan.forward_flops(step) == pytest.approx(formula, rel=0.03)


def test_xla_counts_every_block_and_no_more():
    few, many = (plan.forward_flops(make_step(depth=depth)) for depth in (2, 4))
    blocks = [p for p in flops.forward(make_step(depth=2).task) if p.where.startswith("block.")]
    assert many - few == pytest.approx(flops.total(blocks), rel=0.03)


@pytest.mark.parametrize(
    ("name", "side", "tera"), [("lidit_1b", 256, 1.107), ("lidit_10b_512", 512, 37.49), ("lidit_10b_512", 1024, 165.1)]
)  # fmt: skip
def test_a_picture_costs_what_is_claimed(name, side, tera):
    c = load_config(name)
    c.data.size = (side, side)
    config = assumed.measured(parse(c), assumed.Lengths())
    products = flops.forward(assumed.task(config, assumed.Lengths()))
    assert flops.training(products) / 1e12 == pytest.approx(tera, rel=1e-3)


def gradient_flops(task):
    """XLA's count for one picture's gradient, in which the loop over blocks counts once."""
    graphdef, params, constants = nnx.split(
        jax.eval_shape(lambda: task.init(nnx.Rngs(0))), nnx.Param, ...
    )
    keys_B = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))

    def loss(params, constants, batch, keys_B):
        return task.loss(nnx.merge(graphdef, params, constants), batch, keys_B)[0].mean()

    lowered = jax.jit(jax.grad(loss)).lower(params, constants, task.batch_spec(), keys_B)
    return lowered.compile().cost_analysis()["flops"]


@pytest.mark.parametrize("remat", ["none", "full"])
def test_xla_counts_what_is_recomputed(remat):
    """With so many tokens that each product of queries and keys is a tenth of the whole."""

    model = {"remat": remat, "heads": 2, "unroll": 1}

    def task(depth):
        step = make_step("shapes_direct", assumed.Lengths(2048, 9), depth=depth, **model)
        shape = dataclasses.replace(step.task.shape, batch_size=1, latent=(256, 256, 3))
        return dataclasses.replace(step.task, shape=shape)

    products = flops.forward(task(depth=1))
    formula = flops.training(products) + flops.recomputed(products, remat)
    counted = gradient_flops(task(depth=3))  # elementwise work too, under 1%
    assert counted == pytest.approx(formula, rel=0.01)


def test_what_is_recomputed_grows_with_the_policy():
    products = flops.forward(make_step().task)
    none, full = (flops.recomputed(products, r) for r in ("none", "full"))
    logits = [p for p in products if p.where.endswith(".logits")]
    assert {p.where for p in logits} == {
        f"{w}.logits" for w in ("block.self", "block.cross", "ltr", "cr")
    }
    assert none == flops.total(logits)
    assert 0 < none < full < flops.total(products)


def test_the_products_of_every_conditioner_are_counted():
    assert flops.CONDITIONERS.keys() == CONDITIONERS.keys()


def test_a_conditioner_whose_products_are_not_counted_is_named_before_anything_is_timed(
    monkeypatch,
):
    step = make_step("shapes_direct")
    monkeypatch.delitem(flops.CONDITIONERS, "direct")
    monkeypatch.setattr(training, "take", None)
    with pytest.raises(errors.InputError, match="'direct' are not counted; add a function"):
        training.measure(step.config, step.task, step.mesh)
