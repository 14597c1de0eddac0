"""What the network is asked in training and in sampling, seen through a stand-in for the network."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import rng
from lidit_jax.batch import fake
from lidit_jax.diffusion import schedules
from lidit_jax.models.conditioners import TextCondition
from lidit_jax.training import drawing
from lidit_jax.training.drawing import draw
from lidit_jax.training.tasks.diffusion import diffusion_task
from tests.training.step_test import LENGTHS, make_config


class Asked:
    """Remembers what it is asked; answers 1 to a prompt and -1 to the empty one, whatever the time."""

    conditioner = types.SimpleNamespace(uses_time=True)

    def __init__(self):
        self.seen, self.conditions = [], 0

    def __call__(self, x_t, t_B, text, drop_B):
        self.seen.append((x_t, t_B, text, drop_B))
        return self._answer(x_t, drop_B)

    def time(self, t_B):
        return t_B[:, None]

    def condition(self, text, drop_B, e_t_BxD):
        self.conditions += 1
        return self._condition(jnp.where(drop_B, -1.0, 1.0), tokens=3)

    def empty_condition(self, e_t_1xD):
        assert e_t_1xD.shape == (1, 1)
        return self._condition(-jnp.ones(1), tokens=2)

    def dit(self, x_t, e_t_BxD, condition):
        self.seen.append((x_t, e_t_BxD[:, 0], condition))
        return self._answer(x_t, condition.pooled_BxD[:, 0] < 0)

    def from_raw(self, latents):
        return (latents - 3.0) / 2.0

    def to_raw(self, latents):
        return 2.0 * latents + 3.0

    def _answer(self, x_t, empty_B):
        return jnp.where(empty_B, -1.0, 1.0)[:, None, None, None] * jnp.ones_like(x_t)

    def _condition(self, value_B, tokens):
        rows = len(value_B)
        tokens_BxSx1 = jnp.broadcast_to(value_B[:, None, None], (rows, tokens, 1))
        return TextCondition(tokens_BxSx1, jnp.ones((rows, tokens), bool), value_B[:, None])


def task_and_batch(**model):
    config = make_config(batch_size=2000)
    task = diffusion_task(dataclasses.replace(config, **model), LENGTHS)
    return config, task, fake(task.shape)


def test_the_network_is_asked_about_a_mixture_of_image_and_fresh_noise():
    config, task, batch = task_and_batch()
    model, keys_B = Asked(), rng.per_sample(rng.key(0, "train"), jnp.arange(2000))
    task.loss(model, batch, keys_B)
    x_t, t_B, text, drop_B = model.seen[0]
    alpha_B, sigma_B = schedules.make_schedule(config.objective.schedule).alpha_sigma(t_B)
    expand = schedules.expand
    noise = (x_t - expand(alpha_B) * model.from_raw(batch.latents_BxHxWxC)) / expand(sigma_B)
    each_B = np.asarray(noise).reshape(2000, -1)
    assert abs(each_B.mean()) < 0.01 and abs(each_B.std() - 1) < 0.01
    # no draw is a function of another: nothing follows the time, or what is dropped
    for other_B in (np.asarray(t_B), np.asarray(drop_B)):
        for column in (each_B[:, 0], each_B[:, -1], each_B.mean(1), each_B.std(1)):
            assert abs(np.corrcoef(column, other_B)[0, 1]) < 0.1
    assert abs(np.corrcoef(t_B, drop_B)[0, 1]) < 0.1
    time_stream = rng.normal(rng.named_each(keys_B, "time"), noise.shape[1:])
    assert np.abs(noise - time_stream).mean() > 0.5
    assert text is batch.text


def test_as_many_prompts_are_dropped_as_asked_for():
    _, task, batch = task_and_batch()
    assert task.drop_prompt == 0.1
    keys_B = rng.per_sample(rng.key(0, "train"), jnp.arange(2000))
    for share in (0.0, 0.1, 1.0):
        model = Asked()
        dataclasses.replace(task, drop_prompt=share).loss(model, batch, keys_B)
        assert abs(model.seen[0][3].mean() - share) <= 5 * np.sqrt(share * (1 - share) / 2000)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_guidance_leads_from_the_empty_prompt_to_the_prompt_and_beyond(scale):
    config, task, batch = task_and_batch()
    text = jax.tree.map(lambda a: a[:2], batch.text)
    sample = dataclasses.replace(task.sample, guidance=scale)
    keys_B = rng.per_sample(rng.key(0, "sample"), jnp.arange(2))
    model = Asked()
    pictures = draw(model, config.objective, sample, text, keys_B, (4, 4, 3))
    assert config.objective.prediction == "x0"
    np.testing.assert_allclose(pictures, model.to_raw(-1 + 2 * scale), atol=1e-5)
    rows = {x_t.shape[0] for x_t, *_ in model.seen}
    assert rows == ({2} if scale == 1 else {4})  # one doubled batch, only where it is needed


def test_the_empty_prompt_is_as_long_as_the_prompts_and_masked_where_it_ends():
    config, task, batch = task_and_batch()
    text = jax.tree.map(lambda a: a[:2], batch.text)
    model = Asked()
    keys_B = rng.per_sample(rng.key(0, "sample"), jnp.arange(2))
    sample = dataclasses.replace(task.sample, guidance=3.0)
    with jax.disable_jit():
        draw(model, config.objective, sample, text, keys_B, (4, 4, 3))
    condition = model.seen[0][2]
    real = [[True] * 3, [True, True, False]] * 2  # a prompt and the empty one, in turns
    np.testing.assert_array_equal(condition.mask_BxS, real)
    np.testing.assert_array_equal(condition.pooled_BxD[:, 0], [1, -1, 1, -1])
    np.testing.assert_array_equal(condition.tokens_BxSxD[:, :2, 0], [[1, 1], [-1, -1]] * 2)


def test_a_prompt_that_is_shorter_than_the_unwanted_one_is_masked_where_it_ends():
    config, task, batch = task_and_batch()
    text = jax.tree.map(lambda a: a[:2], batch.text)
    model = Asked()
    model.condition = lambda text, drop_B, _: model._condition(
        jnp.where(drop_B, -1.0, 1.0), tokens=text[0].mask_BxS.shape[1]
    )
    longer = jax.tree.map(lambda a: jnp.concatenate([a[:1], a[:1, :1]], 1), text)
    condition = drawing.conditions(model, text, True, longer)(jnp.zeros(2))
    length = text[0].mask_BxS.shape[1]
    np.testing.assert_array_equal(condition.mask_BxS.sum(1), [length, length + 1] * 2)
    assert condition.mask_BxS[:, :length].all()


@pytest.mark.parametrize("uses_time", [True, False])
def test_what_does_not_use_time_is_not_asked_again(uses_time):
    config, task, batch = task_and_batch()
    text = jax.tree.map(lambda a: a[:2], batch.text)
    model, keys_B = Asked(), rng.per_sample(rng.key(0, "sample"), jnp.arange(2))
    model.conditioner = types.SimpleNamespace(uses_time=uses_time)
    with jax.disable_jit():  # a scan then asks at every step
        draw(model, config.objective, task.sample, text, keys_B, (4, 4, 3))
    steps = len(model.seen)
    assert steps > 1 and model.conditions == (steps if uses_time else 1)
