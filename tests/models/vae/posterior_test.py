"""The posterior is diffusers' own, and costs nothing where it equals the prior."""

import jax.numpy as jnp
import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from lidit_jax.models.vae import posterior
from tests.models.vae.layouts import normal


def test_posterior_is_that_of_diffusers():
    mean, logvar, noise = (normal(2, 3, 5, 4, seed=n) for n in range(3))
    packed = torch.from_numpy(np.concatenate([mean, logvar], -1)).permute(0, 3, 1, 2)
    wanted = DiagonalGaussianDistribution(packed)
    np.testing.assert_allclose(posterior.kl(mean, logvar), wanted.kl().numpy(), rtol=1e-5)
    std = wanted.std.permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(
        posterior.sample(mean, logvar, noise), mean + std * noise, rtol=1e-4, atol=1e-6
    )


def test_a_posterior_equal_to_the_prior_costs_nothing():
    zeros = jnp.zeros((2, 3, 5, 4))
    np.testing.assert_array_equal(posterior.kl(zeros, zeros), 0)
