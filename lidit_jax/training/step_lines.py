"""A JSON-lines file of a run, each line of a step. A resumed run writes on, without saying a step twice."""

import json
import pathlib
from typing import Any

from lidit_jax import files


class StepLines:
    """Appends lines to a file, each at once. Only one process makes one.

    first_step: the first that is about to be done; what the file says of it and of later ones is
    dropped, and so is a line that a kill cut off.
    """

    def __init__(self, path: pathlib.Path, first_step: int):
        _forget(path, first_step)
        self._lines = open(path, "a", buffering=1)

    def write(self, step: int, **facts: Any):
        """Writes what is so at a step, as JSON values."""
        self._lines.write(json.dumps({"step": step, **facts}, ensure_ascii=False) + "\n")

    def close(self):
        self._lines.close()


def read(path: pathlib.Path) -> list[dict]:
    """Returns the whole lines of such a file, oldest first; none if there is no file."""
    if not path.exists():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [line for text in texts if (line := _parsed(text)) is not None]


def _forget(path: pathlib.Path, first_step: int):
    if path.exists():
        kept = [line for line in read(path) if line["step"] < first_step]
        with files.atomic(path) as temporary:
            texts = (json.dumps(line, ensure_ascii=False) + "\n" for line in kept)
            temporary.write_text("".join(texts), encoding="utf-8")


def _parsed(text: str) -> dict | None:
    """Returns a line, or None if a kill cut it off."""
    try:
        line = json.loads(text)
        return line if isinstance(line["step"], int) else None
    except (ValueError, TypeError, KeyError):
        return None
