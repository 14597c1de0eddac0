import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lidit_jax.diffusion import guidance, objectives


def test_guidance_0_is_the_null_prompt_and_more_moves_past_the_prompt():
    cond, null = jnp.array([3.0, 1.0]), jnp.array([1.0, 2.0])

    np.testing.assert_array_equal(guidance.combine(cond, null, 0.0), null)
    np.testing.assert_allclose(guidance.combine(cond, null, 4.5), [10.0, -2.5])


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
