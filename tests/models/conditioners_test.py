"""The contract that every conditioner meets, and the laws of the refiners."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax.batch import TextFeatures
from lidit_jax.models import layers, stacking
from lidit_jax.models.conditioners import CONDITIONERS, ConditionerConfig, TextSource, build
from lidit_jax.models.conditioners.entry import FeatureEntry, concat_tokens
from lidit_jax.models.conditioners.infused import RefinerBlock
from tests.models.lidit_test import count, run, woken

SOURCES = (TextSource(24, prefix_len=3), TextSource(16, prefix_len=2))
B, D, HEADS = 3, 32, 4
VARIANTS = {
    "direct": ConditionerConfig(name="direct"),
    "direct rms": ConditionerConfig(name="direct", feature_norm="rms"),
    "infused": ConditionerConfig(),
    "infused causal": ConditionerConfig(ltr_mask="causal"),
    "infused concat": ConditionerConfig(fusion="concat"),
    "infused ungated": ConditionerConfig(gating=False, feature_norm="none"),
    "infused two cr, context all": ConditionerConfig(n_cr=2, context="all"),
    "infused no ltr": ConditionerConfig(n_ltr=0),
}
SLOW = {"infused ungated", "infused two cr, context all"}  # of what others have too, one at a time
every_variant = pytest.mark.parametrize(
    "config",
    [
        pytest.param(config, id=name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name, config in VARIANTS.items()
    ],
)


def make(config, sources=SOURCES, dtype=jnp.float32):
    return woken(fresh(config, sources, dtype), scale=0.1)


def fresh(config, sources=SOURCES, dtype=jnp.float32):
    return maker(config, sources, dtype)()


@functools.cache
def maker(config, sources, dtype):
    """The program that makes a conditioner, which several tests want."""
    return jax.jit(
        lambda: build(
            config, sources, D, HEADS, dtype=dtype, scan=stacking.Scan(), rngs=nnx.Rngs(0)
        )
    )


def features(sources=SOURCES, length=6, seed=0):
    """Instruction + prompts of several lengths, the first token masked as the model does it."""
    rng = np.random.default_rng(seed)
    out = []
    for s in sources:
        n = s.prefix_len + length
        last = s.prefix_len + np.array([length, 2, 1])
        real = np.arange(n) < last[:, None]
        kept = real & (np.arange(n) >= s.prefix_len)
        hidden = rng.normal(size=(B, n, s.width)).astype(np.float32)
        out.append(TextFeatures(hidden, real & (np.arange(n) > 0), kept, s.prefix_len))
    return tuple(out)


def e_t(seed=0):
    return jax.random.normal(jax.random.key(seed), (B, D))


def edit(f, fn):
    return tuple(dataclasses.replace(x, hidden_BxSxE=fn(i, x)) for i, x in enumerate(f))


def valid(condition):
    return np.where(condition.mask_BxS[:, :, None], condition.tokens_BxSxD, 0)


@every_variant
def test_output_is_finite_and_no_row_is_empty(config):
    out = run(make(config), features(), e_t())
    assert out.tokens_BxSxD.shape[::2] == out.pooled_BxD.shape == (B, D)
    assert jnp.isfinite(out.tokens_BxSxD).all() and out.mask_BxS.any(1).all()
    np.testing.assert_allclose(
        out.pooled_BxD, valid(out).sum(1) / np.asarray(out.mask_BxS).sum(1)[:, None], atol=1e-5
    )


@every_variant
def test_masked_values_change_nothing(config):
    model, f = make(config), features()
    # Padding: neither seen nor kept. (The masked first token is still a query of its own.)
    padded = edit(
        f, lambda i, x: np.where((x.mask_BxS | x.keep_BxS)[:, :, None], x.hidden_BxSxE, 50.0)
    )
    np.testing.assert_allclose(
        valid(run(model, f, e_t())), valid(run(model, padded, e_t())), atol=1e-5
    )


@every_variant
def test_more_padding_changes_no_valid_output(config):
    model, f = make(config), features()

    def longer(x):
        def pad(a):
            return np.pad(a, [(0, 0), (0, 5)] + [(0, 0)] * (a.ndim - 2))

        return TextFeatures(pad(x.hidden_BxSxE), pad(x.mask_BxS), pad(x.keep_BxS), x.prefix_len)

    short, long = run(model, f, e_t()), run(model, tuple(map(longer, f)), e_t())
    np.testing.assert_allclose(
        short.tokens_BxSxD[short.mask_BxS], long.tokens_BxSxD[long.mask_BxS], atol=1e-5
    )
    np.testing.assert_allclose(short.pooled_BxD, long.pooled_BxD, atol=1e-5)


@every_variant
def test_padding_comes_after_the_tokens(config):
    mask_BxS = np.asarray(run(make(config), features(), e_t()).mask_BxS)
    count_B = mask_BxS.sum(1)
    np.testing.assert_array_equal(mask_BxS, np.arange(mask_BxS.shape[1]) < count_B[:, None])
    if CONDITIONERS[config.name].keeps_tokens:
        kept_B = sum(f.keep_BxS.sum(1) for f in features())  # 12, 4 and 2 of 12
        np.testing.assert_array_equal(count_B, kept_B)
        assert mask_BxS.shape[1] == 12


@every_variant
@pytest.mark.parametrize("llms", [1, 2])
def test_switches_that_are_called_unused_change_nothing(config, llms):
    """Of the program or its parameters; those that are not called unused do."""
    others = dict(
        n_ltr=1,
        gating=False,
        ltr_mask="causal",
        fusion="concat",
        n_cr=3,
        context="all",
        feature_norm="rms",
    )
    unused = CONDITIONERS[config.name].unused(config, llms)

    def program(config):
        model = jax.eval_shape(maker(config, SOURCES[:llms], jnp.float32))
        f = features(SOURCES[:llms])
        return str(jax.make_jaxpr(lambda model, f: model(f, e_t()))(model, f))

    own = program(config)
    assert {f.name for f in dataclasses.fields(config)} == others.keys() | {"name"}
    for switch in (others.keys() | unused) - {"name"}:
        if switch in others and getattr(config, switch) != others[switch]:
            other = program(dataclasses.replace(config, **{switch: others[switch]}))
            assert (other == own) == (switch in unused), switch


def test_packed_tokens_are_in_their_order():
    numbers = jnp.arange(1.0, 13.0).reshape(2, 3, 2)
    masks = [jnp.array([[True, False, False], [True, True, False]]), jnp.ones((2, 3), bool)]
    out = concat_tokens([numbers, 100 * numbers], masks)
    np.testing.assert_array_equal(valid(out)[0, :, 0], [1, 100, 300, 500, 0, 0])
    np.testing.assert_array_equal(valid(out)[1, :, 0], [7, 9, 700, 900, 1100, 0])


@every_variant
def test_batch_rows_do_not_mix(config):
    model, f, order = make(config), features(), np.array([2, 0, 1])
    moved = jax.tree.map(lambda a: a[order], f)
    np.testing.assert_allclose(
        run(model, moved, e_t()[order]).tokens_BxSxD,
        run(model, f, e_t()).tokens_BxSxD[order],
        atol=1e-5,
    )


@every_variant
def test_time_is_used_if_and_only_if_declared(config):
    model, f = make(config), features()
    change = jnp.abs(run(model, f, e_t(0)).tokens_BxSxD - run(model, f, e_t(1)).tokens_BxSxD).max()
    assert change > 1e-3 if model.uses_time else change == 0


@every_variant
def test_no_gradient_reaches_the_llm_and_none_comes_from_padding(config):
    model, f = make(config), features()
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)

    def loss(params, hidden):
        g = edit(f, lambda i, x: hidden[i])
        return (nnx.merge(graphdef, params, rest)(g, e_t()).pooled_BxD ** 2).sum()

    hidden = [jnp.asarray(x.hidden_BxSxE) for x in f]
    gradients = jax.jit(jax.grad(loss, argnums=(0, 1)))
    live, through = gradients(params, hidden)
    for gradient in through:
        np.testing.assert_array_equal(gradient, 0)
    spoiled = [np.where((x.mask_BxS | x.keep_BxS)[:, :, None], x.hidden_BxSxE, 9.0) for x in f]
    for a, b in zip(jax.tree.leaves(live), jax.tree.leaves(gradients(params, spoiled)[0])):
        np.testing.assert_allclose(a, b, atol=2e-4)


@every_variant
def test_bf16_is_near_f32(config):
    exact, near = (
        run(make(config), features(), e_t()),
        run(make(config, dtype=jnp.bfloat16), features(), e_t()),
    )
    error = np.linalg.norm(valid(exact) - valid(near).astype(np.float32)) / np.linalg.norm(
        valid(exact)
    )
    assert error < 2e-2


def test_parameter_counts_by_formula():
    def lin(i, o):
        return i * o + o

    def attention(d):
        return 4 * lin(d, d) + 2 * (d // HEADS)

    def ffn(d):
        return lin(d, 4 * d) + lin(4 * d, d)

    entry = sum(s.width + lin(s.width, D) for s in SOURCES)
    ltr = attention(D) + ffn(D) + 2 * D
    cr = attention(D) + ffn(D) + D + lin(D, 6 * D)
    pool, norms = 2 * lin(D, D), 2 * D
    wanted = {
        "direct": entry,
        "direct rms": entry,
        "infused": entry + pool + 4 * (ltr + lin(D, 2 * D)) + 2 * cr + norms,
        "infused concat": entry + pool + 4 * (ltr + lin(D, 2 * D)) + norms,
        "infused ungated": entry + pool + 4 * ltr + 2 * cr + norms,
        "infused no ltr": entry + pool + 2 * cr + norms,
        "infused causal": entry + pool + 4 * (ltr + lin(D, 2 * D)) + 2 * cr + norms,
        "infused two cr, context all": entry + pool + 4 * (ltr + lin(D, 2 * D)) + 4 * cr + norms,
    }
    found = {
        name: count(jax.eval_shape(maker(VARIANTS[name], SOURCES, jnp.float32))) for name in wanted
    }
    assert found == wanted


def test_every_conditioner_is_tried_here():
    assert {c.name for c in VARIANTS.values()} == set(CONDITIONERS)


def test_a_fresh_refiner_is_the_identity_and_an_ungated_one_is_not():
    x, c = (
        jax.random.normal(jax.random.key(0), (2, 5, D)),
        jax.random.normal(jax.random.key(1), (2, D)),
    )
    mask = jnp.ones((2, 1, 5), bool)
    gated, ungated = (
        RefinerBlock(D, HEADS, g, dtype=jnp.float32, rngs=nnx.Rngs(0)) for g in (True, False)
    )
    np.testing.assert_array_equal(run(gated, x, c, mask), x)
    assert jnp.abs(run(ungated, x, c, mask) - x).max() > 0.1


@pytest.mark.parametrize("causal", [False, True])
def test_tokens_left_out_of_the_last_block_are_still_read(causal):
    x, c = (
        jax.random.normal(jax.random.key(0), (2, 7, D)),
        jax.random.normal(jax.random.key(1), (2, D)),
    )
    mask = jnp.tril(jnp.ones((1, 7, 7), bool)) if causal else jnp.ones((2, 1, 7), bool)
    blocks = woken(
        stacking.stack(lambda r: RefinerBlock(D, HEADS, True, dtype=jnp.float32, rngs=r), 3, nnx.Rngs(0)),
        scale=0.1,
    )  # fmt: skip
    for scan in (stacking.Scan(), stacking.Scan("full")):
        whole = jax.jit(lambda b, scan=scan: scan(b, x, c, mask))(blocks)
        part = jax.jit(lambda b, scan=scan: scan(b, x, c, mask, last_args=(c, mask, 3)))(blocks)
        np.testing.assert_allclose(part, whole[:, 3:], atol=1e-5)
        assert jnp.abs(part - x[:, 3:]).max() > 0.1


def influence(model, f, i, source, position):
    """How much each kept token of the output moves when one input token moves."""

    def moved(k, x):
        hidden = np.array(x.hidden_BxSxE)
        hidden[0, position] += k == source
        return hidden

    moves = run(model, edit(f, moved), e_t()).tokens_BxSxD - run(model, f, e_t()).tokens_BxSxD
    return np.abs(moves[0]).max(-1)


def test_full_attention_reads_ahead_and_the_causal_mask_forbids_it():
    """A change of a prompt's last token reaches its first one through the refiner, unless causal.

    gating=False: otherwise the gates, which see the mean of all tokens, carry it.
    """
    one = SOURCES[:1]
    f = features(one)
    last = one[0].prefix_len + 5
    full = make(ConditionerConfig(gating=False), one)
    causal = make(ConditionerConfig(gating=False, ltr_mask="causal"), one)
    assert influence(full, f, 0, 0, last)[0] > 1e-4
    assert influence(causal, f, 0, 0, last)[0] == 0
    assert influence(causal, f, 0, 0, last)[5] > 1e-4


def test_the_collaborative_refiner_lets_llms_read_each_other_and_concat_does_not():
    f = features()
    fused, concat = (make(ConditionerConfig(gating=False, fusion=x)) for x in ("refiner", "concat"))
    second = SOURCES[1].prefix_len + 2
    assert influence(fused, f, 0, 1, second)[:6].max() > 1e-5  # tokens of the first LLM
    assert influence(concat, f, 0, 1, second)[:6].max() == 0


def test_three_llms_share_one_softmax_with_the_same_branch_size():
    three = (*SOURCES, TextSource(8, prefix_len=1))
    model = make(ConditionerConfig(), three)
    assert run(model, features(three), e_t()).tokens_BxSxD.shape == (B, 18, D)
    sizes = {count(branch) for branch in model.collaborative[0]}
    assert sizes == {count(make(ConditionerConfig()).collaborative[0][0])}


def test_the_instruction_is_read_and_then_cut_off():
    one = SOURCES[:1]
    f = features(one)
    model = make(ConditionerConfig(), one)
    assert influence(model, f, 0, 0, 1).max() > 1e-4  # an instruction token
    assert run(model, f, e_t()).tokens_BxSxD.shape[1] == 6


def test_the_first_token_is_never_a_key():
    one = SOURCES[:1]
    f = features(one)
    for config in (ConditionerConfig(), ConditionerConfig(ltr_mask="causal")):
        assert influence(make(config, one), f, 0, 0, 0).max() == 0


def test_channel_norm_standardises_by_the_data_sets_statistics():
    model = fresh(ConditionerConfig(name="direct"), SOURCES[:1])
    entry, f = model.entries[0], features(SOURCES[:1])[0]
    shifted = dataclasses.replace(f, hidden_BxSxE=7.0 + 3.0 * f.hidden_BxSxE)
    before = entry(f)
    entry.mean_E[...], entry.std_E[...] = jnp.full(24, 7.0), jnp.full(24, 3.0)
    np.testing.assert_allclose(entry(shifted), before, atol=1e-5)


def test_masked_mean_by_hand():
    x = jnp.arange(12.0).reshape(2, 3, 2)
    mask = jnp.array([[True, False, True], [False, True, False]])
    np.testing.assert_allclose(layers.masked_mean(x, mask), [[2, 3], [8, 9]])


def test_without_gates_a_refiner_adds_all_that_it_reads():
    block = RefinerBlock(D, HEADS, False, dtype=jnp.float32, rngs=nnx.Rngs(0))
    x, mask = jax.random.normal(jax.random.key(1), (B, 7, D)), jnp.ones((B, 1, 7), bool)
    read = x + block.attention(block.norm1(x), mask)
    wanted = read + block.ffn(block.norm2(read))
    np.testing.assert_allclose(block(x, e_t(), mask), wanted, rtol=1e-5, atol=1e-5)


def test_an_llm_queries_the_other_llms_tokens_and_not_its_own():
    model, f = make(ConditionerConfig(n_ltr=0)), features()
    for pool in model.pools:  # or a token would move all others by the context
        pool.kernel[...] = jnp.zeros_like(pool.kernel[...])
    moved = influence(model, f, 0, 0, SOURCES[0].prefix_len + 2)
    assert moved[2] > 1e-3 and np.delete(moved[:6], 2).max() == 0 and moved[6:].max() > 1e-5


@pytest.mark.parametrize("context", ["prompt", "all"])
def test_the_context_is_of_the_prompt_or_of_all(context):
    model, f = make(ConditionerConfig(context=context)), features()

    def instruction_moved(i, x):
        is_of_it = np.arange(x.hidden_BxSxE.shape[1]) < x.prefix_len
        return x.hidden_BxSxE + is_of_it[None, :, None]

    one, other = (
        model._context(model.pools[0], model.entries[0](g[0]), g[0], e_t())
        for g in (f, edit(f, instruction_moved))
    )
    assert (np.abs(one - other).max() > 1e-3) == (context == "all")


def test_rms_forgets_the_length_of_a_token():
    entry = FeatureEntry(SOURCES[0], D, "rms", dtype=jnp.float32, rngs=nnx.Rngs(0))
    one, *_ = features()
    (longer,) = edit((one,), lambda i, x: 100 * x.hidden_BxSxE)
    np.testing.assert_allclose(entry(longer), entry(one), atol=1e-4)
