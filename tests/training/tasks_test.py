"""What the network is asked in training and in sampling, seen through a stand-in for the network."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax import rng
from lidit_jax.batch import fake
from lidit_jax.diffusion import schedules
from lidit_jax.training.tasks.diffusion import diffusion_task, draw
from tests.training.step_test import LENGTHS, make_config


class Asked:
    """Remembers what it is asked; answers 1 to a prompt and -1 to the empty one."""

    def __init__(self):
        self.seen = []

    def __call__(self, x_t, t_B, text, drop_B):
        self.seen.append((x_t, t_B, text, drop_B))
        return jnp.where(drop_B, -1.0, 1.0)[:, None, None, None] * jnp.ones_like(x_t)

    def from_raw(self, latents):
        return (latents - 3.0) / 2.0

    def to_raw(self, latents):
        return 2.0 * latents + 3.0


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
