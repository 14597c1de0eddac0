"""Classifier-free guidance (arXiv 2207.12598), in x0 space."""

import jax


def combine(cond: jax.Array, null: jax.Array, scale: float) -> jax.Array:
    """Returns null + scale (cond - null), for two predictions of the same view at the same x_t.

    In x0 it is the same rule as eps_null + scale (eps_cond - eps_null): at one x_t every view is
    an affine function of every other, and the weights 1 - scale and scale sum to 1.
    """
    return null + scale * (cond - null)
