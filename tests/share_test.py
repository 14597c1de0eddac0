"""Shares of a job cover it, each piece once; text that is no share is refused."""

import pytest

from lidit_jax import errors, share


@pytest.mark.parametrize("count", [1, 3, 8])
def test_shares_cover_the_pieces_once_each(count):
    parts = [share.parse(f"{i}/{count}").of(7) for i in range(count)]
    assert sorted(piece for part in parts for piece in part) == list(range(7))
    assert share.WHOLE.of(7) == range(7)


@pytest.mark.parametrize("count", [0, 1, 7, 100])
@pytest.mark.parametrize("n", [1, 3, 8])
def test_pieces_follow_each_other_and_are_about_equal(count, n):
    pieces = [share.bounds(count, i, n) for i in range(n)]
    assert [k for piece in pieces for k in piece] == list(range(count))
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1


@pytest.mark.parametrize("text", ["2/2", "1", "-1/2", "a/b", "1/0", "", "0/4/2"])
def test_what_is_no_share_is_refused(text):
    with pytest.raises(errors.InputError, match=f"--share={text}: want i/n"):
        share.parse(text)
