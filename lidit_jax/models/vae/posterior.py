"""The encoder's output is a diagonal Gaussian N(mean, exp(logvar)) over latents, not one latent."""

import jax.numpy as jnp


def sample(mean_BxHxWxC, logvar_BxHxWxC, noise_BxHxWxC):
    """Returns mean + std * noise, for standard normal noise (VAE, arXiv 1312.6114, section 2.4)."""
    return mean_BxHxWxC + jnp.exp(0.5 * logvar_BxHxWxC) * noise_BxHxWxC


def kl(mean_BxHxWxC, logvar_BxHxWxC):
    """Returns KL(N(mean, exp(logvar)) || N(0, 1)) in nats, [B] (arXiv 1312.6114, appendix B)."""
    terms_BxHxWxC = jnp.square(mean_BxHxWxC) + jnp.exp(logvar_BxHxWxC) - 1.0 - logvar_BxHxWxC
    return 0.5 * terms_BxHxWxC.sum((1, 2, 3))
