"""Rows of text as a table; the first row names the columns."""

from collections.abc import Sequence


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns a line for each row, whose columns begin at the same place."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths)) for row in rows]
    return [line.rstrip() for line in lines]


def markdown(rows: Sequence[Sequence[str]], numbers: bool = False) -> str:
    """Returns a Markdown table. numbers: all columns but the first are aligned to the right."""
    head, *others = rows
    marks = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, marks, *others))
