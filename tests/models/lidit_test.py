"""The DiT and the whole model: counts, symmetries, initial identity, sizes, and what sees what."""

import contextlib
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax import errors
from lidit_jax.batch import BatchShape, TextFeatures, fake
from lidit_jax.models import stacking
from lidit_jax.models.conditioners import CONDITIONERS, ConditionerConfig, TextCondition, TextSource
from lidit_jax.models.lidit import Block, LiDiT, ModelConfig

TINY = ModelConfig(width=64, depth=2, heads=4, patch=2, dtype="float32")
SOURCES = (TextSource(48, prefix_len=7), TextSource(32, prefix_len=5))
SHAPE = BatchShape(3, (8, 8, 16), ((10, 48), (6, 32)))


def count(module):
    return sum(a.size for a in jax.tree.leaves(nnx.state(module, nnx.Param)))


def make(config=TINY, sources=SOURCES):
    return maker(config, sources)()


@functools.cache
def maker(config, sources):
    """The program that makes a fresh model, which several tests want."""
    return jax.jit(lambda: LiDiT(config, 16, sources, rngs=nnx.Rngs(0)))


def woken(module, scale=0.05):
    """The module with every array perturbed, so that nothing is hidden by a zero gate."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda a: a + scale * rng.normal(size=a.shape).astype(a.dtype), module)


@jax.jit
def run(module, *args):
    return module(*args)


def abstract(config, sources):
    return jax.eval_shape(lambda: LiDiT(config, 16, sources, rngs=nnx.Rngs(0)))


def test_parameter_counts_of_the_paper():
    two = (TextSource(4096, 40), TextSource(4096, 40))
    assert count(abstract(ModelConfig(1152, 28, 16, 2), two)) == 1_093_638_432
    assert count(abstract(ModelConfig(1152, 28, 16, 2), two[:1])) == 1_002_583_136
    assert count(abstract(ModelConfig(2816, 48, 44, 2), two)) == 10_463_117_120
    tiny = abstract(TINY, SOURCES)
    assert count(tiny.dit) == 323_136
    assert count(tiny.conditioner) == 396_176


def test_every_parameter_names_an_axis_per_dimension():
    for path, param in nnx.to_flat_state(nnx.state(abstract(TINY, SOURCES), nnx.Param)):
        assert len(param.get_metadata("axes")) == len(param.shape), path


def test_a_fresh_model_predicts_zero():
    batch = fake(BatchShape(3, (8, 8, 16), ((10, 48), (6, 32))))
    out = run(make(), batch.latents_BxHxWxC, jnp.linspace(0, 1, 3), batch.text, jnp.zeros(3, bool))
    assert out.shape == (3, 8, 8, 16) and out.dtype == jnp.float32
    np.testing.assert_array_equal(out, 0)


def test_a_fresh_block_is_the_identity_and_a_woken_one_is_not():
    block = Block(64, 4, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x, c, text = (
        jax.random.normal(jax.random.key(i), s)
        for i, s in enumerate([(2, 9, 64), (2, 64), (2, 5, 64)])
    )
    mask = jnp.ones((2, 5), bool)
    np.testing.assert_array_equal(run(block, x, c, text, mask), x)
    assert jnp.abs(run(woken(block), x, c, text, mask) - x).max() > 0.1


def test_stacked_blocks_equal_a_loop():
    stacked = woken(
        stacking.stack(lambda r: Block(32, 4, dtype=jnp.float32, rngs=r), 3, nnx.Rngs(0))
    )
    x, c, text = (
        jax.random.normal(jax.random.key(i), s)
        for i, s in enumerate([(2, 9, 32), (2, 32), (2, 5, 32)])
    )
    args = (c, text, jnp.ones((2, 5), bool))
    looped = x
    for i in range(3):
        looped = run(jax.tree.map(lambda a, i=i: a[i], stacked), looped, *args)
    for scan in [stacking.Scan(remat) for remat in stacking.REMAT_POLICIES] + [
        stacking.Scan(unroll=4)
    ]:
        scanned = jax.jit(lambda s, scan=scan: scan(s, x, *args))(stacked)
        np.testing.assert_allclose(scanned, looped, atol=1e-5)


@pytest.mark.parametrize(
    ("remat", "widths"),
    [
        ("none", 1 + 3 + 1 + 2 + 2 + 4 + 1),  # input; q, k, v; q; 2 mixed; 2 read; up; down
        ("full", 1),
    ],
)  # fmt: skip
def test_of_a_block_nothing_is_kept_for_the_gradient_but_products(remat, widths):
    """Norms, GELU and modulation in f32 would be several times as much."""
    D, depth, B, T = 64, 3, 2, 144
    blocks = stacking.stack(lambda r: Block(D, 4, dtype=jnp.bfloat16, rngs=r), depth, nnx.Rngs(0))
    x, text = (jnp.ones((B, n, D), jnp.bfloat16) for n in (T, 5))

    def run_all(blocks, x):
        return stacking.Scan(remat)(blocks, x, jnp.ones((B, D)), text, jnp.ones((B, 5), bool))

    kept = jax.tree.leaves(jax.vjp(run_all, blocks, x)[1])
    of_tokens = [a for a in kept if {T, B * T} & set(a.shape) and a.shape[-1] > 1]
    assert sum(a.nbytes for a in of_tokens) == 2 * widths * depth * B * T * D


@pytest.mark.parametrize(("unroll", "refused"), [(1, False), (3, False), (4, True), (6, True)])
def test_recomputing_wants_a_loop_over_blocks(unroll, refused):
    """Without one XLA merges what the backward pass computes again with what the forward pass had."""
    sizes = dict(width=32, depth=4, heads=4, patch=2, unroll=unroll)
    ModelConfig(**sizes, remat="none")
    with (
        pytest.raises(errors.InputError, match="model.remat='full' needs a loop over blocks")
        if refused
        else contextlib.nullcontext()
    ):
        ModelConfig(**sizes, remat="full")


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(errors.InputError, match="model.width 32 does not divide over .* 5"):
        ModelConfig(width=32, depth=4, heads=5, patch=2)


class Identity(nnx.Module):
    def __call__(self, x):
        return x


def permuted(x_BxHxWxC, patch, order):
    B, H, W, C = x_BxHxWxC.shape
    h, w = H // patch, W // patch
    tokens = (
        x_BxHxWxC.reshape(B, h, patch, w, patch, C)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(B, h * w, patch, patch, C)
    )
    back = tokens[:, order].reshape(B, h, w, patch, patch, C).transpose(0, 1, 3, 2, 4, 5)
    return back.reshape(B, H, W, C)


@pytest.mark.parametrize("with_position", [False, True])
def test_only_the_position_block_breaks_permutation_symmetry(with_position):
    model = woken(make())
    if not with_position:
        model.dit.position = Identity()
    batch = fake(BatchShape(2, (8, 8, 16), ((10, 48), (6, 32))))
    order = np.random.default_rng(0).permutation(16)

    def predict(x):
        return run(model, x, jnp.full(2, 0.5), batch.text, jnp.zeros(2, bool))

    x = batch.latents_BxHxWxC
    difference = np.abs(predict(permuted(x, 2, order)) - permuted(predict(x), 2, order)).max()
    assert (difference > 1e-2) if with_position else (difference < 1e-4)


@pytest.mark.parametrize("grid", [(16, 16), (12, 20), (32, 8)])
def test_one_model_runs_any_size(grid):
    model = woken(make())
    batch = fake(BatchShape(1, (2 * grid[0], 2 * grid[1], 16), ((10, 48), (6, 32))))
    out = run(model, batch.latents_BxHxWxC, jnp.full(1, 0.5), batch.text, jnp.zeros(1, bool))
    assert out.shape == batch.latents_BxHxWxC.shape and jnp.isfinite(out).all()


def test_padding_of_a_prompt_changes_no_prediction():
    """Neither what is in it, nor how much there is of it."""
    model = woken(make())
    batch = fake(BatchShape(3, (8, 8, 16), ((6, 48), (5, 32))))

    def predict(text):
        return run(model, batch.latents_BxHxWxC, jnp.full(3, 0.5), text, jnp.zeros(3, bool))

    def spoil(f):
        hidden = np.where(f.mask_BxS[:, :, None], f.hidden_BxSxE, 50.0)
        return TextFeatures(hidden, f.mask_BxS, f.keep_BxS)

    def lengthen(f):
        return jax.tree.map(lambda a: np.pad(a, [(0, 0), (0, 4)] + [(0, 0)] * (a.ndim - 2)), f)

    assert not all(f.mask_BxS.all() for f in batch.text)
    wanted = predict(batch.text)
    for change in (spoil, lengthen):
        np.testing.assert_allclose(predict(tuple(map(change, batch.text))), wanted, atol=1e-5)


def test_a_dropped_prompt_is_the_empty_prompt_whatever_it_said():
    model = woken(make())
    shape = BatchShape(2, (8, 8, 16), ((10, 48), (6, 32)))
    one, other = fake(shape, 0), fake(shape, 1)
    x, t = one.latents_BxHxWxC, jnp.full(2, 0.5)
    drop, keep = jnp.ones(2, bool), jnp.zeros(2, bool)
    np.testing.assert_array_equal(
        run(model, x, t, one.text, drop), run(model, x, t, other.text, drop)
    )
    assert (
        jnp.abs(run(model, x, t, one.text, keep) - run(model, x, t, other.text, keep)).max() > 1e-3
    )
    # and it equals a prompt whose features are the null's
    null = tuple(
        TextFeatures(
            jnp.zeros(f.hidden_BxSxE.shape).at[:, :1].set(c.null_ZxE[...][None]),
            jnp.zeros_like(f.mask_BxS).at[:, :1].set(True),
            jnp.zeros_like(f.keep_BxS).at[:, :1].set(True),
        )
        for f, c in zip(one.text, model.text)
    )  # fmt: skip
    np.testing.assert_allclose(
        run(model, x, t, null, keep), run(model, x, t, one.text, drop), atol=1e-6
    )


def test_the_instruction_is_completed_and_its_first_token_masked():
    model = make()
    batch = fake(BatchShape(2, (8, 8, 16), ((4, 48), (6, 32))))
    model.text[0].prefix_PxE[...] = jnp.arange(7 * 48, dtype=jnp.float32).reshape(7, 48)
    done = model.text[0].complete(batch.text[0], jnp.zeros(2, bool))
    assert done.prefix_len == 7 and done.hidden_BxSxE.shape == (2, 11, 48)
    np.testing.assert_array_equal(done.hidden_BxSxE[1, :7], model.text[0].prefix_PxE[...])
    np.testing.assert_array_equal(done.hidden_BxSxE[:, 7:], batch.text[0].hidden_BxSxE)
    np.testing.assert_array_equal(done.mask_BxS[:, :7], [[False] + [True] * 6] * 2)
    np.testing.assert_array_equal(done.mask_BxS[:, 7:], batch.text[0].mask_BxS)
    np.testing.assert_array_equal(done.keep_BxS[:, :7], np.zeros((2, 7), bool))


def test_bf16_is_near_f32_and_parameters_stay_f32():
    batch = fake(BatchShape(2, (8, 8, 16), ((10, 48), (6, 32))))
    args = (batch.latents_BxHxWxC, jnp.full(2, 0.5), batch.text, jnp.zeros(2, bool))
    exact = run(woken(make()), *args)
    model = woken(make(dataclasses.replace(TINY, dtype="bfloat16")))
    assert {a.dtype for a in jax.tree.leaves(nnx.state(model, nnx.Param))} == {jnp.dtype("float32")}
    error = jnp.linalg.norm(run(model, *args) - exact) / jnp.linalg.norm(exact)
    assert 0 < error < 2e-2


@pytest.mark.parametrize("conditioner", CONDITIONERS)
def test_every_number_of_every_parameter_moves_the_prediction(conditioner):
    config = dataclasses.replace(TINY, conditioner=ConditionerConfig(name=conditioner))
    graphdef, params, rest = nnx.split(woken(make(config)), nnx.Param, ...)
    batch, t_B = fake(SHAPE), jnp.linspace(0.1, 0.9, 3)
    weight_BxHxWxC = jax.random.normal(jax.random.key(1), batch.latents_BxHxWxC.shape)

    def weighted(params):
        model = nnx.merge(graphdef, params, rest)
        out = model(batch.latents_BxHxWxC, t_B, batch.text, jnp.zeros(3, bool))
        return (out * weight_BxHxWxC).sum()

    gradients = nnx.to_flat_state(jax.jit(jax.grad(weighted))(params))
    assert not [path for path, g in gradients if (np.asarray(g[...]) == 0).any()]


def test_time_is_read_by_the_dit_itself():
    config = dataclasses.replace(TINY, conditioner=ConditionerConfig(name="direct"))
    model, batch = woken(make(config)), fake(SHAPE)
    one, other = (
        run(model, batch.latents_BxHxWxC, jnp.full(3, t), batch.text, jnp.zeros(3, bool))
        for t in (0.2, 0.7)
    )
    assert jnp.abs(one - other).max() > 1e-2


def test_the_empty_prompt_is_drawn_as_it_was_trained():
    @jax.jit
    def both(model):
        e_t_BxD = model.time(jnp.full(3, 0.3))
        dropped = model.condition(fake(SHAPE).text, jnp.ones(3, bool), e_t_BxD)
        return dropped, model.empty_condition(e_t_BxD[:1])

    dropped, empty = both(woken(make()))
    n = empty.mask_BxS.shape[1]
    assert empty.mask_BxS.all() and int(dropped.mask_BxS[0].sum()) == n
    for found, wanted in (
        (dropped.tokens_BxSxD[:, :n], empty.tokens_BxSxD),
        (dropped.pooled_BxD, empty.pooled_BxD),
    ):
        np.testing.assert_allclose(found, jnp.broadcast_to(wanted, found.shape), atol=1e-5)


@pytest.mark.parametrize("at", [(0, 0), (2, 7), (5, 9)])
def test_without_attention_a_patch_sees_two_around_it_on_a_grid_of_any_shape(at):
    """A fresh model's gates are closed: what is left are the position block's two convolutions."""
    model, (i, j) = make(), at
    kernel = model.dit.final.kernel
    kernel[...] = jax.random.normal(jax.random.key(0), kernel.shape)
    text = fake(BatchShape(1, (12, 20, 16), ((10, 48), (6, 32)))).text

    def predict(x):
        return run(model, x, jnp.full(1, 0.5), text, jnp.zeros(1, bool))

    x = jax.random.normal(jax.random.key(1), (1, 12, 20, 16))
    moved_HxW = jnp.abs(predict(x.at[0, 2 * i + 1, 2 * j].add(1)) - predict(x)).max(-1)[0]
    seen = np.asarray(moved_HxW).reshape(6, 2, 10, 2).max((1, 3)) > 0
    y, z = np.indices((6, 10))
    np.testing.assert_array_equal(seen, (abs(y - i) <= 2) & (abs(z - j) <= 2))


def test_stacked_blocks_are_born_different():
    blocks = stacking.stack(lambda r: Block(32, 4, dtype=jnp.float32, rngs=r), 3, nnx.Rngs(0))
    kernel_LxIxO = np.asarray(blocks.ffn.up.kernel[...])
    for one, other in ((0, 1), (1, 2)):
        assert np.abs(kernel_LxIxO[one] - kernel_LxIxO[other]).max() > 0.01


@pytest.mark.parametrize("field", ["dtype", "remat"])
def test_unknown_names_list_the_known_ones(field):
    with pytest.raises(errors.InputError, match=rf"model.{field} 'flaot32'; known: "):
        dataclasses.replace(TINY, **{field: "flaot32"})


def test_an_unknown_conditioner_lists_the_known_ones():
    with pytest.raises(errors.InputError, match="'dirct'; known: direct"):
        ConditionerConfig(name="dirct")


def test_condition_is_a_pytree():
    condition = TextCondition(jnp.zeros((1, 2, 3)), jnp.ones((1, 2), bool), jnp.zeros((1, 3)))
    assert len(jax.tree.leaves(condition)) == 3
