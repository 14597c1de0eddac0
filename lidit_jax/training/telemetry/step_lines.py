"""A JSON-lines file with one step per line. A resumed run appends without repeating steps.

{"step": 100, "loss": 0.71, ..., "crc": "5f0e3a11"}     the CRC-32 of the line without it
"""

import json
import pathlib
import zlib
from typing import Any

from lidit_jax import files


class StepLines:
    """Appends lines to a file, each written immediately. Only one process makes one.

    first_step: the first step to be done; lines from that step on are dropped from the file, and so
      are lines that are damaged or were cut off by a kill.
    count: lines in the file.
    """

    def __init__(self, path: pathlib.Path, first_step: int):
        self.count = _forget(path, first_step)
        self._lines = open(path, "a", buffering=1, encoding="utf-8")

    def write(self, step: int, **facts: Any):
        """Writes the facts of a step, as JSON values."""
        self._lines.write(_line({"step": step, **facts}))
        self.count += 1

    def close(self):
        self._lines.close()


def read(path: pathlib.Path) -> list[dict]:
    """Returns the undamaged lines of such a file, oldest first; none if there is no file."""
    if not path.exists():
        return []
    # Not `splitlines`: a key may hold characters that it splits at and JSON does not escape.
    texts = path.read_text(encoding="utf-8", errors="replace").split("\n")
    return [line for text in texts if (line := _parsed(text)) is not None]


def _forget(path: pathlib.Path, first_step: int) -> int:
    kept = [line for line in read(path) if line["step"] < first_step]
    if path.exists():
        with files.atomic(path) as temporary:
            temporary.write_text("".join(map(_line, kept)), encoding="utf-8")
    return len(kept)


def _line(facts: dict) -> str:
    text = json.dumps(facts, ensure_ascii=False)
    return f"{text[:-1]}{_CRC}{_crc(text)}{_END}\n"


def _parsed(text: str) -> dict | None:
    """Returns the facts of a line that `_line` made; None for any other text."""
    body, found, rest = text.rpartition(_CRC)
    whole = found and rest == _crc(f"{body}}}") + _END
    return json.loads(f"{body}}}") if whole else None


_CRC, _END = ', "crc": "', '"}'


def _crc(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"
