"""A table has a column wherever its rows have one."""

import pytest

from lidit_jax import tables

ROWS = [("score", "ours"), ("a", "0.5"), ("the other", "")]


def test_columns_begin_at_the_same_place_and_no_line_ends_in_blanks():
    assert tables.aligned(ROWS) == ["score      ours", "a          0.5", "the other"]
    assert tables.aligned([]) == []


def test_markdown_marks_the_head_and_the_numbers():
    told = "| score | ours |\n| --- | {} |\n| a | 0.5 |\n| the other |  |"
    assert tables.markdown(ROWS) == told.format("---")
    assert tables.markdown(ROWS, numbers=True) == told.format("---:")


def test_rows_of_different_lengths_are_refused():
    with pytest.raises(ValueError):
        tables.aligned([*ROWS, ("a",)])
