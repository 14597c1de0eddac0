"""Records on disk, as they come: a run that was killed continues after the last whole line.

    judged-<i>-of-<n>.jsonl    a head, which says what is judged and by whom; then, of each picture,
                               {"file": "000000.png", "record": {...}}

Each share writes one, and reads all.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks.benchmark import Record
from lidit_jax.share import Share

Append = Callable[[str, Record], None]


@contextlib.contextmanager
def appending(out: Path, share: Share, head: Mapping[str, Any]) -> Iterator[Append]:
    """Yields a function that adds a picture's record to a share's journal, which none else may write.

    A torn last line, of a writer that was killed, is dropped.
    """
    path = out / f"judged-{share.index}-of-{share.count}.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as journal:
        whole = len(_whole_lines(path))
        journal.truncate(whole)
        if not whole:
            _write(journal, head)
        yield lambda file, record: _write(journal, {"file": file, "record": record})


def read_all(out: Path, head: Mapping[str, Any]) -> dict[str, Record]:
    """Returns file -> record, of the journals of all shares.

    Raises InputError if one is damaged, or of another head; a line that is not whole yet is left out.
    """
    return {
        file: record
        for path in sorted(out.glob("judged-*-of-*.jsonl"))
        for file, record in _read(path, head).items()
    }


def _write(journal, value: Mapping[str, Any]):
    journal.write(json.dumps(value, allow_nan=False).encode() + b"\n")
    journal.flush()  # the line is the system's now, and outlives this process


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _read(path: Path, head: Mapping[str, Any]) -> dict[str, Record]:
    try:
        lines = [json.loads(line) for line in _whole_lines(path).splitlines()]
        found = dict(lines[0]) if lines else head
        records = {line["file"]: line["record"] for line in lines[1:]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}); delete it, and its pictures are judged again"
        ) from error
    _check_head(path, found, head)
    return records


def _check_head(path: Path, found: Mapping[str, Any], head: Mapping[str, Any]):
    """Raises InputError with what differs, if anything does."""
    differs = [
        f"{key} is {found.get(key)}, here {value}"
        for key, value in head.items()
        if found.get(key) != value
    ]
    if differs:
        raise InputError(
            f"{path} is about something else: {'; '.join(differs)}; give another --out, or delete it"
        )
