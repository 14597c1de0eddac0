"""Shares of tiles sum to one, and a function of small neighbourhoods does not see the tiles."""

from fractions import Fraction

import numpy as np
import pytest

from lidit_jax.models.vae.tiling import tiled, windows
from tests.models.vae.layouts import normal


@pytest.mark.parametrize("size", [16, 64, 72, 96, 104, 112, 200, 1000])
@pytest.mark.parametrize("scale", [Fraction(1, 8), Fraction(2)])
def test_shares_of_tiles_sum_to_one_everywhere(size, scale):
    total = np.zeros(int(size * scale))
    for window in windows(size, 64, 16, scale):
        assert 0 <= window.read.start and window.read.stop <= size
        assert window.read.stop - window.read.start == min(size, 64)
        assert (window.share > 0).all()
        total[window.write] += window.share
    np.testing.assert_allclose(total, 1, rtol=1e-6)


def test_a_tiles_share_falls_linearly_where_the_next_one_begins():
    first, second = windows(112, 64, 16, Fraction(1))
    np.testing.assert_array_equal(first.share[:48], 1)
    np.testing.assert_allclose(np.diff(first.share[48:]), -1 / 17, rtol=1e-5)
    np.testing.assert_allclose(first.share[48:] + second.share[:16], 1, rtol=1e-6)


def pool(x_BxHxWxI):
    B, H, W, I = x_BxHxWxI.shape  # noqa: E741
    return x_BxHxWxI.reshape(B, H // 8, 8, W // 8, 8, I).mean((2, 4))


def enlarge(x_BxHxWxI):
    return x_BxHxWxI.repeat(8, 1).repeat(8, 2)


@pytest.mark.parametrize("size", [(40, 48), (32, 32), (56, 104), (200, 24)])
@pytest.mark.parametrize(("fn", "scale"), [(pool, Fraction(1, 8)), (enlarge, Fraction(8))])
def test_a_local_function_does_not_see_the_tiles(fn, scale, size):
    shapes, x = set(), normal(2, *size, 3)

    def spy(part):
        shapes.add(part.shape)
        return fn(part)

    found = tiled(spy, x, 3, tile=32, overlap=8, scale=scale)
    np.testing.assert_allclose(found, fn(x), rtol=1e-5, atol=1e-6)
    assert len(shapes) == 1
