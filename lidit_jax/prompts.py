"""Files of prompts: one per line in a .txt, one JSON object per line in a .jsonl.

    {"prompt": "flag of Norway", "size": [48, 80]}

`size` is height and width in pixels, and is optional. Other keys are ignored, so GenEval's
evaluation_metadata.jsonl can be read as it is.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterable

from lidit_jax import errors, files


@dataclasses.dataclass(frozen=True)
class Prompt:
    """What to draw, and its (height, width) in pixels; None leaves the size to the run."""

    text: str
    size: tuple[int, int] | None = None


def write(path: pathlib.Path, prompts: Iterable[Prompt]):
    """Writes a .jsonl, atomically."""
    with files.atomic(path) as temporary, open(temporary, "w", encoding="utf-8") as f:
        for prompt in prompts:
            fields = {"prompt": prompt.text} | ({"size": prompt.size} if prompt.size else {})
            f.write(json.dumps(fields, ensure_ascii=False) + "\n")


def read(path: pathlib.Path) -> list[Prompt]:
    """Returns the prompts of a file, without empty lines.

    Raises InputError if the file is neither .txt nor .jsonl, is missing, is not UTF-8, has no
    prompt, or has an invalid line.
    """
    kind = path.suffix.lower()
    if kind not in (".txt", ".jsonl"):
        raise errors.InputError(f"cannot read prompts from {path}: want a .txt or a .jsonl")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as e:
        raise errors.InputError(f"cannot read prompts from {path}: {e}") from e
    if "\0" in text:
        raise errors.InputError(f"{path} contains zeros, as UTF-16 does; save it as UTF-8")
    if kind == ".jsonl":
        lines = enumerate(text.split("\n"), 1)
        prompts = [_parsed(path, number, line) for number, line in lines if line.strip()]
    else:
        prompts = [Prompt(line.strip()) for line in text.split("\n") if line.strip()]
    if not prompts:
        raise errors.InputError(f"{path} has no prompt; want one per line")
    return prompts


def _parsed(path: pathlib.Path, number: int, line: str) -> Prompt:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise errors.InputError(f"{path}, line {number} is not JSON: {e}") from None
    if not isinstance(fields, dict) or not is_text(fields.get("prompt")):
        raise errors.InputError(f'{path}, line {number}: want {{"prompt": "a red heart"}}')
    size = fields.get("size")
    if size is None:
        return Prompt(fields["prompt"])
    if not (
        isinstance(size, list) and len(size) == 2 and all(type(s) is int and s > 0 for s in size)
    ):
        raise errors.InputError(
            f"{path}, line {number}: its size is {size!r}; want [height, width] in pixels"
        )
    return Prompt(fields["prompt"], tuple(size))


def is_text(value) -> bool:
    """Whether a value is a text that UTF-8 can encode: JSON can spell others."""
    return isinstance(value, str) and not any("\ud800" <= c <= "\udfff" for c in value)
