"""The table of captions in Hugging Face's imagefolder layout: metadata.csv or metadata.jsonl."""

import csv
import json
import pathlib
from collections.abc import Iterator

from lidit_jax.data.sources.fields import Row
from lidit_jax.errors import InputError
from lidit_jax.prompts import is_text

NAMES = ("metadata.csv", "metadata.jsonl")
KEY = "file_name"  # the column with the picture's path, relative to the table


def find(folder: pathlib.Path) -> pathlib.Path | None:
    """Returns the table in a folder, if it has one; InputError if it has two."""
    found = [folder / name for name in NAMES if (folder / name).is_file()]
    if len(found) > 1:
        raise InputError(f"{folder} has {' and '.join(NAMES)}; remove one")
    return found[0] if found else None


def read(path: pathlib.Path) -> list[tuple[str, Row | None]]:
    """Returns (file name, other columns) of each row; a line that is none has its number and None.

    Bytes that are not UTF-8 become surrogates. Raises InputError without rows, or the column file_name.
    """
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = list(_csv_rows(file, path) if path.suffix == ".csv" else _jsonl_rows(file))
    columns = {name for _, row in rows if row for name in row}
    if any("\0" in name or not is_text(name) for name in columns):
        raise InputError(f"{path} is not UTF-8; save it as that")
    if not columns:
        raise InputError(f"{path} has no rows; wanted one for each picture, with {KEY}")
    if KEY not in columns:
        raise InputError(
            f"{path} has no column {KEY!r}, with commas between columns, but {sorted(columns)}"
        )
    return [_named(path, number, row) for number, row in rows]


def _csv_rows(file: Iterator[str], path: pathlib.Path) -> Iterator[tuple[int, Row | None]]:
    csv.field_size_limit(2**24)  # characters; the default is 131,072
    reader = csv.DictReader(file, strict=True)
    try:
        for number, row in enumerate(reader, 1):
            yield number, None if None in row else row  # more cells than columns
    except csv.Error as e:
        raise InputError(
            f"{path} is no table: {e}, in the row that begins at line {reader.line_num + 1}; look for a quote "
            f"that is not closed"
        ) from e


def _jsonl_rows(file: Iterator[str]) -> Iterator[tuple[int, Row | None]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else None


def _named(path: pathlib.Path, number: int, row: Row | None) -> tuple[str, Row | None]:
    if not row or not isinstance(row.get(KEY), str):
        return f"{path.name}:{number}", None
    return row[KEY], {name: value for name, value in row.items() if name != KEY}
