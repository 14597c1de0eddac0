"""Claims say what they say, and nothing else is one."""

import numpy as np
import pytest

from lidit_jax.ablation import claims
from lidit_jax.errors import InputError

VALUES = {"a": np.array([1.0, 5.0]), "b": np.array([2.0, 3.0]), "c": np.array([4.0, 0.5])}


@pytest.mark.parametrize(
    ("text", "margin", "runs"),
    [
        ("a > b", [-1, 2], "ab"),
        ("a - b > c - b", [-3, 4.5], "abc"),
        ("c > max(a, b)", [2, -4.5], "abc"),
        ("min(a, b, c) + a > b", [0, 2.5], "abc"),
        ("max(a - b, b - a) > b", [-1, -1], "ab"),
    ],
)
def test_a_margin_is_left_less_right(text, margin, runs):
    claim = claims.parse(text)
    assert claim.runs == set(runs) and claim.text == text
    np.testing.assert_array_equal(claim.margin(VALUES), margin)


@pytest.mark.parametrize(
    "text",
    ["", "a", "a < b", "a > b > c", "a >= b", "a > 1", "a * b > c", "f(a) > b", "max() > a"]
    + ["a > b; c", "a.b > c", "max(a, key=b) > c", "__import__('os') > a", "(a > b) > c"],
)
def test_other_text_is_refused(text):
    with pytest.raises(InputError, match="is not a claim; want A > B"):
        claims.parse(text)
