"""`attend` is softmax(q k^T) v, its gradient too, by every kernel; nothing of its logits' size is kept."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import sharding
from lidit_jax.models import mixing
from lidit_jax.models.mixing import attend

B, T, S, N, K = 2, 5, 7, 3, 8


def arrays(dtype=jnp.float32, seed=0):
    q, k, v, g = jax.random.split(jax.random.key(seed), 4)
    draw = jax.random.normal
    return (
        draw(q, (B, N, T, K), dtype),
        draw(k, (B, N, S, K), dtype),
        draw(v, (B, N, S, K), dtype),
    ), draw(g, (B, N, T, K), dtype)


MASKS = {
    "none": None,
    "of tokens": jnp.arange(S)[None, None] < jnp.array([4, 7])[:, None, None],
    "of pairs": jnp.tril(jnp.ones((1, T, S), bool)) | jnp.eye(T, S, dtype=bool)[None],
}


def textbook(q, k, v, mask):
    """The definition, with jax's own softmax and derivative."""
    logits = jnp.einsum("bntk,bnsk->bnts", q, k)
    mask = jnp.ones((1, 1, 1, 1), bool) if mask is None else mask[:, None]
    return jnp.einsum("bnts,bnsk->bntk", jax.nn.softmax(logits, -1, where=mask), v)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_it_is_the_definition_and_so_is_its_gradient(mask):
    inputs, g = arrays()
    out, back = jax.vjp(lambda *a: attend(*a, mask), *inputs)
    wanted, wanted_back = jax.vjp(lambda *a: textbook(*a, mask), *inputs)
    np.testing.assert_allclose(out, wanted, atol=1e-6)
    for found, exact in zip(back(g), wanted_back(g)):
        np.testing.assert_allclose(found, exact, atol=1e-5)


def test_in_bf16_it_is_near_the_definition_and_keeps_its_dtype():
    inputs, g = arrays(jnp.bfloat16)
    mask = MASKS["of tokens"]
    out, back = jax.vjp(lambda *a: attend(*a, mask), *inputs)
    exact = [a.astype(jnp.float32) for a in inputs]
    wanted, wanted_back = jax.vjp(lambda *a: textbook(*a, mask), *exact)
    pairs = [(out, wanted), *zip(back(g), wanted_back(g.astype(jnp.float32)))]
    for found, right in pairs:
        assert found.dtype == jnp.bfloat16
        assert jnp.linalg.norm(found - right) < 1e-2 * jnp.linalg.norm(right)


def test_huge_logits_neither_overflow_nor_mislead():
    (q, k, v), _ = arrays()
    out = attend(1e4 * q, k, v, None)
    best = jnp.einsum("bntk,bnsk->bnts", q, k).argmax(-1)
    np.testing.assert_allclose(out, jnp.take_along_axis(v, best[..., None], 2), atol=1e-6)


def test_nothing_of_the_logits_size_is_kept_for_the_gradient():
    many = jnp.ones((1, 1, 64, 4))
    kept = jax.tree.leaves(jax.vjp(lambda *a: attend(*a, None), many, many, many)[1])
    assert kept and max(a.size for a in kept) <= many.size < 64 * 64


def like(tokens=4096, width=64, dtype=jnp.bfloat16, rows=8):
    return jax.ShapeDtypeStruct((rows, 4, tokens, width), dtype)


BY_TOKEN, BY_QUERY = (jax.ShapeDtypeStruct((8, n, 4096), bool) for n in (1, 4096))


@pytest.mark.parametrize(
    ("platform", "q", "mask", "packed", "kernel"),
    [
        ("cpu", like(), None, False, "plain"),
        ("gpu", like(), None, False, "cudnn"),
        ("gpu", like(width=72), BY_TOKEN, True, "cudnn"),
        ("gpu", like(), BY_TOKEN, False, "plain"),  # no count says which are seen
        ("gpu", like(dtype=jnp.float32), None, False, "plain"),
        ("gpu", like(width=136), None, False, "plain"),
        ("gpu", like(width=36), None, False, "plain"),
        ("tpu", like(), None, False, "splash"),
        ("tpu", like(dtype=jnp.float32), BY_TOKEN, False, "splash"),
        ("tpu", like(tokens=4032), None, False, "splash"),
        ("tpu", like(tokens=256), None, False, "plain"),
        ("tpu", like(), BY_QUERY, False, "plain"),
    ],
)
def test_the_kernel_is_chosen_by_platform_and_what_it_can_do(
    monkeypatch, platform, q, mask, packed, kernel
):
    on_platform(monkeypatch, platform, "9.0")
    assert mixing.chosen(q, like(dtype=q.dtype), mask, packed) == kernel


@pytest.mark.parametrize(
    ("version", "has"), [("8.0", True), ("12.0", True), ("7.5", False), ("gfx942", False)]
)
def test_cudnn_attends_on_nvidias_gpus_from_ampere_on(monkeypatch, version, has):
    on_platform(monkeypatch, "gpu", version)
    assert mixing.has_cudnn() == has


def on_platform(monkeypatch, platform, version=""):
    device = types.SimpleNamespace(compute_capability=version)
    monkeypatch.setattr(sharding, "platform", lambda: platform)
    monkeypatch.setattr(jax, "local_devices", lambda backend: [device])


def test_rows_that_do_not_divide_over_the_mesh_are_mixed_by_what_the_compiler_can_split(
    monkeypatch,
):
    on_platform(monkeypatch, "tpu")
    mesh = sharding.make_mesh((2, 2, 2))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        assert mixing.chosen(like(), like(), None, False) == "splash"
        assert mixing.chosen(like(rows=1), like(rows=1), None, False) == "plain"


def test_the_platform_is_the_meshs_not_the_machines():
    tpu = jax.sharding.AbstractDevice(device_kind="TPU v6 lite", num_cores=1, platform="tpu")
    auto = (jax.sharding.AxisType.Auto,) * 3
    mesh = jax.sharding.AbstractMesh((1, 1, 1), sharding.MESH_AXES, auto, abstract_device=tpu)
    assert sharding.platform() == "cpu"
    with jax.sharding.use_abstract_mesh(mesh):
        assert sharding.platform() == "tpu"


def many(tokens, seen, queries=256):
    """So many queries, keys and values, of which each row sees so many."""
    keys = jax.random.split(jax.random.key(3), 4)
    q, k, v, g = (
        jax.random.normal(key, (len(seen), 2, n, 16))
        for key, n in zip(keys, (queries, tokens, tokens, queries))
    )
    return (q, k, v), g, jnp.arange(tokens)[None, None] < jnp.array(seen)[:, None, None]


def check_as_plain(kernel, inputs, g, mask):
    out, back = jax.vjp(lambda *a: kernel(*a, mask), *inputs)
    wanted, wanted_back = jax.vjp(lambda *a: mixing.plain(*a, mask), *inputs)
    np.testing.assert_allclose(out, wanted, atol=1e-5)
    for found, exact in zip(back(g), wanted_back(g)):
        np.testing.assert_allclose(found, exact, atol=1e-4)


splash = functools.partial(mixing.splash, interpret=True)


@pytest.mark.parametrize(("queries", "tokens"), [(256, 128), (130, 1), (520, 129)])
@pytest.mark.parametrize("masked", [False, True])
def test_splash_attention_is_the_plain_one_of_any_length(queries, tokens, masked):
    inputs, g, mask = many(tokens, seen=[-(-tokens // 2), 1], queries=queries)
    check_as_plain(splash, inputs, g, mask if masked else None)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN wants a GPU")
@pytest.mark.parametrize("packed", [False, True])
def test_cudnns_attention_is_the_plain_one(packed):
    inputs, g, mask = many(128, seen=[100, 7])
    *inputs, g = (a.astype(jnp.bfloat16) for a in (*inputs, g))
    mask = mask if packed else None
    out, back = jax.vjp(lambda *a: mixing.cudnn(*a, mask), *inputs)
    wanted, wanted_back = jax.vjp(lambda *a: mixing.plain(*a, mask), *inputs)
    for found, exact in zip((out, *back(g)), (wanted, *wanted_back(g))):
        found, exact = found.astype(jnp.float32), exact.astype(jnp.float32)
        assert jnp.linalg.norm(found - exact) < 2e-2 * jnp.linalg.norm(exact)


def check_on_eight_devices(kernel, *arrays):
    """Checks a kernel that is compiled for a mesh of (2, 2, 2) and given what is split by rows."""
    mesh = sharding.make_mesh((2, 2, 2))

    def mixed(*arrays):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return kernel(*arrays)

    check_as_plain(jax.jit(mixed), *jax.device_put(arrays, sharding.batch_sharding(mesh)))


def test_each_device_mixes_its_own_rows_and_heads():
    held = []

    def watched(*arrays):
        held.append([a.shape for a in arrays])
        return mixing.plain(*arrays)

    check_on_eight_devices(
        lambda *a: sharding.by_rows_and_heads(watched)(*a), *many(128, seen=[100, 7, 128, 1])
    )
    assert held[0] == [(1, 1, 256, 16), *[(1, 1, 128, 16)] * 2, (1, 1, 128)]


def test_splash_attention_is_the_plain_one_on_a_mesh():
    check_on_eight_devices(splash, *many(128, seen=[100, 7, 128, 1]))


def test_cudnn_is_what_is_compiled_for_nvidia(monkeypatch):
    """Without a GPU it can be lowered, not run: both passes are cuDNN's own calls."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)
    q, mask = like(tokens=256, width=72), jax.ShapeDtypeStruct((8, 1, 256), bool)

    def both(q, k, v, mask):
        out, back = jax.vjp(lambda *a: mixing.cudnn(*a, mask), q, k, v)
        return out, back(out)

    traced = jax.jit(both).trace(q, q, q, mask)
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "__cudnn$fmhaSoftmax" in text and "__cudnn$fmhaSoftmaxBackward" in text
    assert "PADDING" in text  # by the count
    assert "x256x256x" not in text  # no weights


@pytest.mark.parametrize(
    ("kernel", "platform", "call", "gradient"),
    [
        (mixing.plain, "cpu", "stablehlo.dot_general", 5),  # its logits again, and four
        (mixing.cudnn, "cuda", "@__cudnn$fmhaSoftmax", 1),
        (mixing.splash, "tpu", "@tpu_custom_call", 2),
    ],
)
def test_what_a_kernel_computed_can_be_kept(monkeypatch, kernel, platform, call, gradient):
    """Its forward pass is lowered once, though all else is computed again."""
    from jax._src.cudnn import fused_attention_stablehlo

    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91300)

    def calls(policy):
        again = jax.checkpoint(lambda q: kernel(jnp.sin(q), q, q, None), policy=policy)
        traced = jax.jit(jax.value_and_grad(lambda q: again(q).sum())).trace(like(tokens=1024))
        return traced.lower(lowering_platforms=(platform,)).as_text().count(call)

    forward = 2 if kernel is mixing.plain else 1
    assert calls(mixing.is_kept) == forward + gradient
    assert calls(jax.checkpoint_policies.nothing_saveable) == 2 * forward + gradient
