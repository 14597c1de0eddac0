import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.diffusion import guidance, objectives


def test_guidance_1_is_the_prompt_alone_and_never_asks_for_the_null():
    def both(x_t, t):
        raise AssertionError("the null prompt was evaluated")

    denoise = guidance.guided(lambda x_t, t: x_t * t, both, scale=1.0)
    np.testing.assert_array_equal(denoise(jnp.arange(3.0), 2.0), [0, 2, 4])


def test_guidance_0_is_the_null_prompt_and_more_moves_past_the_prompt():
    cond, null = jnp.array([3.0, 1.0]), jnp.array([1.0, 2.0])

    def with_scale(scale):
        return guidance.guided(lambda x_t, t: cond, lambda x_t, t: (cond, null), scale)(0, 0)

    np.testing.assert_array_equal(with_scale(0.0), null)
    np.testing.assert_allclose(with_scale(4.5), [10.0, -2.5])


@pytest.mark.parametrize("view", ["eps", "v", "flow"])
def test_guiding_x0_is_guiding_any_view(view):
    cond, null, x_t = jax.random.normal(jax.random.key(0), (3, 2, 4, 4, 3))
    alpha, sigma = 0.6, 0.7

    def as_view(x0):
        return objectives.convert(x0, x_t, alpha, sigma, "x0", view)

    np.testing.assert_allclose(
        as_view(guidance.combine(cond, null, 4.5)),
        guidance.combine(as_view(cond), as_view(null), 4.5),
        atol=1e-4,
    )
