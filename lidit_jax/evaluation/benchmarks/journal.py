"""Records on disk, written one by one: a run that was killed resumes after the last complete line.

    judged-<i>-of-<n>.jsonl    a head that says what is judged and by whom; then, for each picture,
                               {"file": "000000.png", "sha256": ..., "record": {...}, "sealed": ...}

sha256 is of the picture; the seal is a hash of the line's other keys. Each share writes one
journal, and reads all.
"""

import itertools
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lidit_jax import files
from lidit_jax.errors import InputError
from lidit_jax.evaluation.benchmarks.benchmark import Record
from lidit_jax.share import Share

Key = tuple[str, str]  # a picture's file, as named in the manifest, and its SHA-256


def write(out: Path, share: Share, head: Mapping[str, Any], records: Iterable[tuple[Key, Record]]):
    """Appends records to a share's journal as they arrive.

    An incomplete last line, left by a killed writer, is dropped. Nothing is written before the
    first record exists: mistakes have shown by then. Raises InputError if another process writes
    this journal.
    """
    records = iter(records)
    first = list(itertools.islice(records, 1))
    if not first:
        return
    path = out / f"judged-{share.index}-of-{share.count}.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as journal:
        files.held_alone(journal, f"writes {path}")
        whole = len(_whole_lines(path))
        journal.truncate(whole)
        if not whole:
            _write(journal, head)
        for (file, sha256), record in itertools.chain(first, records):
            line = {"file": file, "sha256": sha256, "record": record}
            _write(journal, line | {files.SEAL: _seal(line)})


def read_all(out: Path, head: Mapping[str, Any]) -> dict[Key, Record]:
    """Returns the records in the journals of all shares.

    Raises InputError if one is damaged or has another head; an incomplete last line is left out.
    """
    return {
        key: record
        for path in sorted(out.glob("judged-*-of-*.jsonl"))
        for key, record in _read(path, head).items()
    }


def _write(journal, value: Mapping[str, Any]):
    journal.write(json.dumps(value, allow_nan=False).encode() + b"\n")
    journal.flush()  # the operating system has the line now; it outlives this process


def _seal(line: Mapping[str, Any]) -> str:
    return files.digest(json.loads(json.dumps(line)))


def _whole_lines(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]


def _read(path: Path, head: Mapping[str, Any]) -> dict[Key, Record]:
    try:
        lines = [json.loads(line) for line in _whole_lines(path).splitlines()]
        found = dict(lines[0]) if lines else head
        broken = [k for k, line in enumerate(lines[1:], 2) if line.pop(files.SEAL) != _seal(line)]
        if broken:
            raise ValueError(f"line {broken[0]} does not match its seal")
        records = {(line["file"], line["sha256"]): line["record"] for line in lines[1:]}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({error!r}); delete it, and its pictures will be judged again"
        ) from error
    _check_head(path, found, head)
    return records


def _check_head(path: Path, found: Mapping[str, Any], head: Mapping[str, Any]):
    """Raises InputError that lists the differences, if there are any."""
    differs = [
        f"{key} is {found.get(key)}, here {value}"
        for key, value in head.items()
        if found.get(key) != value
    ]
    if differs:
        raise InputError(
            f"{path} is about something else: {'; '.join(differs)}; use another --out, or delete it"
        )
