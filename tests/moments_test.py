"""Mean and variance of parts are those of the whole."""

import json

import numpy as np

from lidit_jax.moments import Moments


def test_moments_equal_numpy_also_merged_and_far_from_zero():
    parts = [
        np.random.default_rng(i).normal(1e4, 2, size=(n, 3, 2)) for i, n in enumerate((4, 1, 7))
    ]
    whole, merged = Moments(2), Moments(2)
    for part in parts:
        whole.add(part)
        alone = Moments(2)
        alone.add(part)
        merged.merge(json.loads(json.dumps(alone.to_json())))
    merged.merge(Moments(2).to_json())  # nothing adds nothing
    flat = np.concatenate([part.reshape(-1, 2) for part in parts])
    for moments in (whole, merged):
        assert moments.count == len(flat)
        np.testing.assert_allclose(moments.mean_C, flat.mean(0), rtol=1e-12)
        np.testing.assert_allclose(moments.std_C, flat.std(0), rtol=1e-9)


def test_the_covariance_of_parts_is_that_of_the_whole():
    rows_NxC = np.random.default_rng(0).normal(100, [1, 2, 3], size=(12, 3))
    rows_NxC[:, 1] += rows_NxC[:, 0]
    moments = Moments(3, across=True)
    for part in (rows_NxC[:5], rows_NxC[5:6], rows_NxC[6:]):
        moments.add(part)
    np.testing.assert_allclose(moments.covariance_CxC, np.cov(rows_NxC, rowvar=False), rtol=1e-9)
    np.testing.assert_allclose(moments.std_C, rows_NxC.std(0), rtol=1e-9)
