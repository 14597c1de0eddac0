"""The update: the same on any mesh, with any micro-batching; noise is each sample's own."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from lidit_jax import digests, errors, rng, sharding
from lidit_jax.batch import fake, spec
from lidit_jax.models.lidit import LiDiT
from lidit_jax.training import optim, programs, state, step
from lidit_jax.training.config import parse
from lidit_jax.training.drawing import draw
from lidit_jax.training.feed import to_devices
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests.tiny import load_config

WIDTHS, LENGTHS = (24, 16), (6, 5)  # of an LLM's features, and of its longest prompt
leaves_with_path, keystr = jax.tree_util.tree_leaves_with_path, jax.tree_util.keystr


def make_config(optimizer="adamw", llms=1, **train):
    """Returns a tiny model's config; a step of two LLMs takes twice as long to compile."""
    c = load_config("shapes_two_llms", "smoke")
    c.text.use = c.text.use[:llms]
    c.optim.name = optimizer
    c.data.size = (16, 16)
    c.model.width, c.model.heads, c.model.depth, c.model.patch = 32, 4, 2, 4
    c.train.batch_size, c.train.steps, c.optim.warmup_steps = 16, 5, 2
    c.train.log_every = 3
    c.train.update(train)
    config = parse(c)
    encoders = tuple(
        dataclasses.replace(e, width=w, prefix_len=3) for e, w in zip(config.encoders, WIDTHS)
    )
    return dataclasses.replace(config, encoders=encoders)


def begin(config, mesh):
    """Returns the task, a first state, and the update."""
    task = diffusion_task(config, LENGTHS)
    optimizer = optim.make_optimizer(config.optim, config.train.steps)
    graphdef, like = state.abstract(task, optimizer, mesh)
    constants = LiDiT.constants(
        np.zeros(3), np.ones(3),
        [dict(mean_E=np.zeros(e), std_E=np.ones(e), prefix_PxE=np.ones((3, e)), null_ZxE=np.ones((1, e))) for e in WIDTHS[: len(config.encoders)]],
    )  # fmt: skip
    current = state.make_initial(task, optimizer, config.seed, like)(constants)
    return task, current, step.make_step(task, graphdef, optimizer, config, mesh, like)


def run(config, mesh, steps=5, seed=lambda i: i):
    """Returns losses, gradient norms, the final state and all metrics of a few updates on random batches."""
    task, current, update = begin(config, mesh)
    metrics = []
    for i in range(steps):
        current, latest = update(current, to_devices(fake(task.shape, seed=seed(i)), mesh))
        metrics.append(jax.device_get(latest))
    return [m["loss"] for m in metrics], [m["grad_norm"] for m in metrics], current, metrics


@pytest.fixture(scope="module")
def single():
    return run(make_config(), sharding.make_mesh((1, 1, 1), jax.devices()[:1]))


def assert_trained_alike(found, wanted):
    losses, norms, final, told = wanted
    for name in ("batch", "noise"):
        np.testing.assert_array_equal(found[3][-1][name], told[-1][name])
    np.testing.assert_allclose(found[0], losses, rtol=1e-5)
    np.testing.assert_allclose(found[1], norms, rtol=1e-4)
    assert losses[-1] != losses[0]
    for a, b in zip(jax.tree.leaves(found[2].ema), jax.tree.leaves(final.ema), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.slow
def test_eight_devices_train_with_two_llms_as_one():
    config, one = make_config(llms=2), sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    assert_trained_alike(run(config, sharding.make_mesh((2, 2, 2))), run(config, one))


def test_eight_devices_train_as_one(single):
    found = run(make_config(), sharding.make_mesh((2, 2, 2)))
    assert_trained_alike(found, single)
    final = found[2]
    # and parameters and moments are split as the table says: fsdp 2 x tensor 2
    kernel = final.params["dit"]["blocks"]["ffn"]["up"]["kernel"][...]
    moment = final.opt_state[1][0].mu["dit"]["blocks"]["ffn"]["up"]["kernel"][...]
    for array in (kernel, moment):
        assert array.shape == (2, 32, 128)
        assert array.addressable_shards[0].data.shape == (2, 16, 64)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_moment_lives_where_its_parameter_does(optimizer):
    config = make_config(optimizer)
    task, optimizer = diffusion_task(config, LENGTHS), optim.make_optimizer(config.optim, 5)
    _, like = state.abstract(task, optimizer, sharding.make_mesh((2, 2, 2)))
    where = {keystr(path): p.sharding for path, p in leaves_with_path(like.params)}
    moments = [(keystr(path), m.sharding) for path, m in leaves_with_path(like.opt_state)]
    owned = [(where[end], found) for name, found in moments for end in where if name.endswith(end)]
    assert len(owned) >= len(where) and all(wanted == found for wanted, found in owned)
    assert len({found.spec for _, found in owned}) > 3


@pytest.mark.slow
def test_fsdp_splits_the_work_by_samples():
    """Parameters and batch share the axis fsdp; no device may compute another's samples for that."""
    config = make_config(batch_size=32)  # wide enough that the compiler would rather gather samples
    model = dataclasses.replace(config.model, width=128, patch=2, unroll=1)
    config = dataclasses.replace(config, model=model)

    def flops(sizes):
        mesh = sharding.make_mesh(sizes, jax.devices()[: math.prod(sizes)])
        task, optimizer = diffusion_task(config, LENGTHS), optim.make_optimizer(config.optim, 5)
        graphdef, like = state.abstract(task, optimizer, mesh)
        update = step.make_step(task, graphdef, optimizer, config, mesh, like)
        return update.lower(like, task.batch_spec()).compile().cost_analysis()["flops"]

    assert flops((1, 8, 1)) < 1.1 * flops((8, 1, 1))


def test_a_step_that_is_logged_tells_what_was_drawn(single):
    config = make_config()
    for number in (3, 5):  # the third step, and the last
        batch = fake(diffusion_task(config, LENGTHS).shape, seed=number - 1)
        keys = jax.random.key_data(step.draws(config, number - 1))
        np.testing.assert_array_equal(single[3][number - 1]["batch"], digests.of_all(batch))
        np.testing.assert_array_equal(single[3][number - 1]["noise"], digests.digest(keys))


@pytest.mark.slow
def test_a_step_compiled_for_every_bin_compiles_nothing_more_and_gives_the_same(single):
    config, mesh = make_config(), sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    task, optimizer = diffusion_task(config, LENGTHS), optim.make_optimizer(config.optim, 5)
    graphdef, like = state.abstract(task, optimizer, mesh)
    update = step.make_step(task, graphdef, optimizer, config, mesh, like)
    shapes = [dataclasses.replace(task.shape, latent=(h, w, 3)) for h, w in ((16, 16), (8, 16))]
    compiled = programs.compile_each(update, like, list(map(spec, shapes)))
    current = jax.tree.map(jnp.copy, single[2])
    batches = [to_devices(fake(shape), mesh) for shape in shapes]
    seen = []
    jax.monitoring.register_event_duration_secs_listener(lambda name, *_, **__: seen.append(name))
    for batch in batches:
        current, metrics = compiled(current, batch)
    jax.block_until_ready(current)
    assert not [name for name in seen if "compile" in name]
    wanted = jax.tree.map(jnp.copy, single[2])
    for batch in batches:
        wanted, latest = update(wanted, batch)
    assert [name for name in seen if "compile" in name]  # the listener hears
    np.testing.assert_array_equal(metrics["loss"], latest["loss"])
    with pytest.raises(KeyError):
        compiled(current, to_devices(fake(dataclasses.replace(task.shape, latent=(4, 4, 3))), mesh))


def spoiled(batch):
    """A sample that a bf16 latent can hold, and whose loss no f32 can."""
    latents = batch.latents_BxHxWxC.copy()
    latents[3, 0, 0, 0] = 3e38
    return dataclasses.replace(batch, latents_BxHxWxC=latents)


@pytest.mark.parametrize(
    ("optimizer", "sizes"),
    [
        ("adamw", (1, 1, 1)),
        pytest.param("muon", (2, 2, 2), marks=pytest.mark.slow),
        pytest.param("adamw", (2, 2, 2), marks=pytest.mark.slow),
        pytest.param("muon", (1, 1, 1), marks=pytest.mark.slow),
    ],
)
def test_a_run_with_a_spoiled_batch_ends_as_one_without_that_step(optimizer, sizes):
    """Bit for bit: parameters, moments, the optimizer's counts, average, and what the guard has seen."""
    mesh = sharding.make_mesh(sizes, jax.devices()[: math.prod(sizes)])
    task, with_it, update = begin(make_config(optimizer), mesh)
    _, without, _ = begin(make_config(optimizer), mesh)
    skipped = []
    for i in range(4):
        batch = fake(task.shape, seed=i)
        given = to_devices(spoiled(batch) if i == 2 else batch, mesh)
        with_it, told = update(with_it, given)
        skipped.append(int(told["skipped"]))
        assert np.isfinite(told["loss"]) == (i != 2)
        if i == 2:
            without = dataclasses.replace(without, step=without.step + 1)
        else:
            without, _ = update(without, to_devices(batch, mesh))
    assert skipped == [0, 0, 1, 0] and int(with_it.guard.updates) == 3
    jax.tree.map(np.testing.assert_array_equal, with_it, without)


def test_each_step_draws_its_own_noise():
    """The same batch, and nothing learned."""
    mesh = sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    task, fresh, update = begin(make_config(), mesh)
    batch, losses = to_devices(fake(task.shape), mesh), []
    for i in (0, 1, 2, 0):
        given = jax.tree.map(
            jnp.copy, dataclasses.replace(fresh, step=jnp.full_like(fresh.step, i))
        )
        losses.append(float(update(given, batch)[1]["loss"]))
    assert len(set(losses)) == 3 and losses[3] == losses[0]


def test_micro_batches_give_the_same_update(single):
    losses, norms, _, _ = run(
        make_config(accumulate=4), sharding.make_mesh((1, 2, 1), jax.devices()[:2])
    )
    np.testing.assert_allclose(losses, single[0], rtol=1e-5)
    np.testing.assert_allclose(norms, single[1], rtol=1e-4)


def test_no_two_samples_and_no_two_steps_share_noise():
    draws = [
        rng.normal(
            rng.named_each(rng.per_sample(rng.key(0, "train", s), jnp.arange(16)), "noise"), (4,)
        )
        for s in (0, 1)
    ]
    rows = np.concatenate(draws).round(6)
    assert len(np.unique(rows, axis=0)) == 32
    other_name = rng.normal(
        rng.named_each(rng.per_sample(rng.key(0, "train"), jnp.arange(16)), "time"), (4,)
    )
    assert not np.isin(other_name, draws[0]).any()


OTHERWISE = (
    "runs, seeds and checkpoints of before mean something else now: say so to whoever has some"
)


def test_a_seed_trains_and_draws_what_it_always_has(single):
    """Of a tiny model: five losses and gradients' norms, and a picture of what it then is."""
    losses, norms, current, _ = single
    golden = [1.2423924, 1.4955524, 1.4805192, 1.5033765, 1.2275538]
    np.testing.assert_allclose(losses, golden, rtol=1e-4, err_msg=OTHERWISE)
    golden = [0.1350796, 0.1870354, 0.1825805, 0.1878195, 0.1348064]
    np.testing.assert_allclose(norms, golden, rtol=1e-3, err_msg=OTHERWISE)
    config = make_config()
    task = diffusion_task(config, LENGTHS)
    text = jax.tree.map(lambda a: a[:2], fake(task.shape).text)
    keys_B = rng.per_sample(rng.key(0, "sample"), jnp.arange(2))
    graphdef, _, _ = state.split(task.init(nnx.Rngs(0)))

    @jax.jit
    def drawn(ema, constants):
        model = nnx.merge(graphdef, ema, constants)
        return draw(model, config.objective, task.sample, text, keys_B, task.shape.latent)

    picture_N = np.asarray(drawn(current.ema, current.constants))[1].ravel()
    golden = [-0.0097871, -0.0000210, -0.0341308, -0.0043345]
    np.testing.assert_allclose(picture_N[:4], golden, atol=1e-5, err_msg=OTHERWISE)


def test_no_two_seeds_steps_or_samples_have_one_key():
    config = make_config()
    drawn = [
        jax.random.key_data(step.draws(dataclasses.replace(config, seed=seed), now))
        for seed in (0, 1)
        for now in (0, 1)
    ]
    assert len(np.unique(np.concatenate(drawn), axis=0)) == 4 * config.train.batch_size


def test_a_run_begins_with_the_parameters_of_its_seed():
    config, mesh = make_config(), sharding.make_mesh((1, 1, 1), jax.devices()[:1])
    born = [
        np.asarray(current.params["dit"]["patchify"]["kernel"][...])
        for _, current, _ in (begin(dataclasses.replace(config, seed=s), mesh) for s in (0, 0, 1))
    ]
    np.testing.assert_array_equal(born[0], born[1])
    assert np.abs(born[0] - born[2]).min() > 0


def test_a_sample_draws_the_same_whatever_the_batch():
    few, many = (
        rng.normal(rng.per_sample(rng.key(3, "train"), jnp.arange(n)), (5,)) for n in (3, 11)
    )
    np.testing.assert_array_equal(few, many[:3])


def test_constants_are_not_trained(single):
    model = nnx.to_pure_dict(single[2].constants)
    np.testing.assert_array_equal(model["text"][0]["prefix_PxE"], 1)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((3, 1, 1), "needs 3 devices, but there are 8"),
        ((0, 1, 1), "want three positive sizes"),
        ((-1, -1, 1), "at most one of them -1"),
    ],
)
def test_a_mesh_that_does_not_fit_the_devices_is_refused(sizes, message):
    with pytest.raises(errors.InputError, match=message):
        sharding.make_mesh(sizes)


def test_a_parameter_that_does_not_divide_is_named_with_a_mesh_that_would():
    config = make_config(llms=2)
    task, optimizer = diffusion_task(config, LENGTHS), optim.make_optimizer(config.optim, 5)
    with pytest.raises(
        errors.InputError,
        match=r"attention.kv.bias of shape \(4, 2, 8\) does not divide over 8 .*'tensor' "
        r"\(its side of 4\); a mesh of \(2, 1, 4\) .* would work",
    ):
        state.abstract(task, optimizer, sharding.make_mesh((1, 1, 8)))
    state.abstract(task, optimizer, sharding.make_mesh((2, 1, 4)))


def test_a_batch_that_does_not_divide_is_refused_with_sizes_that_do():
    with pytest.raises(
        errors.InputError, match="batch_size 100 does not divide over 8 .* use 96 or 104"
    ):
        sharding.check_batch(sharding.make_mesh((1, -1, 1)), 100)
    with pytest.raises(
        errors.InputError, match="8 data-parallel devices x 3 accumulation steps; use 96 or 120"
    ):
        sharding.check_batch(sharding.make_mesh((1, -1, 1)), 100, 3)
