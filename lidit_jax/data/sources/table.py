"""The table of captions in Hugging Face's imagefolder layout: metadata.csv or metadata.jsonl."""

import csv
import json
import pathlib
from collections.abc import Iterator, Sequence

from lidit_jax.data.sources.fields import Row
from lidit_jax.errors import InputError
from lidit_jax.prompts import is_text

NAMES = ("metadata.csv", "metadata.jsonl")
KEY = "file_name"  # the column with the picture's path, relative to the table


def find(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the table in a folder, if it has one. Raises InputError if it has two."""
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"{folder} has {' and '.join(NAMES)}; remove one")
    return found[0] if found else None


def read(path: pathlib.Path, captions: Sequence[str]) -> list[tuple[str, Row | None]]:
    """Returns (file name, other columns) of each row.

    An invalid row has None for the columns, and its number in place of a missing name. Bytes that
    are not UTF-8 become surrogates. captions: names of columns.
    Raises InputError if there are no rows or no column file_name, or if it or a caption column is
    there twice.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        columns, rows = _csv(file, path) if path.suffix == ".csv" else _jsonl(file)
    if any("\0" in name or not is_text(name) for name in columns):
        raise InputError(f"{path} is not UTF-8; save it as that")
    if not rows:
        raise InputError(f"{path} has no rows; wanted one for each picture, with {KEY}")
    if not columns:
        raise InputError(f"no line of {path} is a JSON object; wanted one for each picture")
    if KEY not in columns:
        raise InputError(
            f"{path} has no column {KEY!r}, but {sorted(columns)}; separate columns by commas"
        )
    for name in (KEY, *captions):
        if columns.count(name) > 1:
            raise InputError(f"{path} has two columns {name!r}; rename one")
    read = [_named(path, number, row) for number, row in rows]
    if all(row is None for _, row in read):
        why = f"none matches the header, {', '.join(columns)}; put a text with commas in quotes"
        if path.suffix != ".csv":
            why = f"no line has a text as its {KEY!r}"
        raise InputError(f"no row of {path} can be read: {why}")
    return read


_Numbered = list[tuple[int, Row | None]]


def _csv(file: Iterator[str], path: pathlib.Path) -> tuple[list[str], _Numbered]:
    """Returns the columns and the numbered rows."""
    csv.field_size_limit(2**24)  # characters; the default is 131,072
    reader = csv.DictReader(file, strict=True)
    try:
        rows = list(enumerate(reader, 1))
    except csv.Error as e:
        raise InputError(
            f"{path} is not a table: {e}, in the row that begins at line {reader.line_num + 1}; "
            f"look for a quote that is not closed"
        ) from e
    return list(reader.fieldnames or ()), rows


def _jsonl(file: Iterator[str]) -> tuple[list[str], _Numbered]:
    """Returns the columns of all rows, and the numbered rows; an invalid row is None."""
    columns, rows = {}, []
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        row = row if isinstance(row, dict) else None
        columns |= dict.fromkeys(row or ())
        rows.append((number, row))
    return list(columns), rows


def _named(path: pathlib.Path, number: int, row: Row | None) -> tuple[str, Row | None]:
    if not row or not isinstance(row.get(KEY), str):
        return f"{path.name}:{number}", None
    if None in row:  # more cells than columns
        return row[KEY], None
    return row[KEY], {name: value for name, value in row.items() if name != KEY}
