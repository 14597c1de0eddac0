"""Classifier-free guidance (arXiv 2207.12598), in x0 space."""

from collections.abc import Callable

import jax

Denoise = Callable[[jax.Array, jax.Array], jax.Array]
DenoiseBoth = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def combine(cond: jax.Array, null: jax.Array, scale: float) -> jax.Array:
    """Returns null + scale (cond - null), for two predictions of the same view at the same x_t.

    In x0 it is the same rule as eps_null + scale (eps_cond - eps_null): at one x_t every view is
    an affine function of every other, and the weights 1 - scale and scale sum to 1.
    """
    return null + scale * (cond - null)


def guided(denoise_cond: Denoise, denoise_both: DenoiseBoth, scale: float) -> Denoise:
    """Returns denoise(x_t, t) -> x0 guided by `scale`, a Python number; 1 is off.

    Args:
      denoise_cond: (x_t, t) -> x0 with the prompts; all that runs when guidance is off.
      denoise_both: (x_t, t) -> (x0 with the prompts, x0 with the null prompt), in general one
        forward pass of a doubled batch; never called when guidance is off.
      scale: guidance scale.
    """
    if scale == 1:
        return denoise_cond
    return lambda x_t, t: combine(*denoise_both(x_t, t), scale)
