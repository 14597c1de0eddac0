"""Makes an example from a row of named values: which are captions, and what the rest is called."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from lidit_jax.data.sources.example import Caption, Example, Picture, Unusable
from lidit_jax.errors import unknown_name

Row = dict[str, Any]

REASONS = {  # of an Unusable
    "caption-missing": "no field that holds captions has text",
    "caption-not-utf8": "a caption is not UTF-8",
    "caption-unreadable": "the JSON or the row with its captions cannot be read",
    "image-missing": "captions without a picture",
    "image-second": "a sample in a tar has more than one picture; the first one is used",
    "name-dots": "a picture's name in a tar has dots before its suffix; the first ends the sample",
    "tar-damaged": "a tar is truncated, damaged, not a tar, or two in one file; "
    "what was before is used",
    "tar-compressed": "a compressed tar, in which no picture can be read by itself",
    "parquet-damaged": "a row of a row group that cannot be read; the rows before are used",
}

# The names that rules read, and other names for the same in data sets. LAION's WIDTH and HEIGHT are
# those of the picture on the web, not of the stored one, so they are not renamed.
ALIASES = {
    "aesthetic": ("AESTHETIC_SCORE", "aesthetic_score"),
    "watermark": ("pwatermark",),
    "url": ("URL",),
    "language": ("LANGUAGE",),
}
NUMBERS: dict[str, Callable[[float], float]] = {
    "width": int,
    "height": int,
    "aesthetic": float,
    "punsafe": float,
    "watermark": float,
}
LANGUAGES = ("en", "zh")


@dataclasses.dataclass(frozen=True)
class Fields:
    """The fields that hold captions, each a text or a list of texts; all others are metadata."""

    caption: str = "caption"
    synthetic: str = "synthetic"

    def check(self, columns: Iterable[str], where: str):
        """Raises InputError if a column is missing, unless its name is "synthetic"."""
        columns = list(columns)
        for option, name in (("caption", self.caption), ("synthetic", self.synthetic)):
            if name not in columns and name != "synthetic":
                raise unknown_name(f"column of {where} (data.options.{option})", name, columns)

    def example(self, key: str, picture: Picture, row: Row) -> Example | Unusable:
        """Returns the example of a row, or why the row is not one."""
        rest = {k: v for k, v in row.items() if k not in (self.caption, self.synthetic)}
        known = metadata(rest)
        language = _language(known.get("language"))
        try:
            captions = [Caption(t, language) for t in texts(row.get(self.caption))]
            captions += [Caption(t, "", "synthetic") for t in texts(row.get(self.synthetic))]
        except UnicodeError:
            return Unusable(key, "caption-not-utf8")
        except TypeError:
            return Unusable(key, "caption-unreadable")
        if not captions:
            return Unusable(key, "caption-missing")
        return Example(key, picture, tuple(captions), known)

    def example_of_files(
        self, key: str, picture: Picture, text: bytes | None, record: bytes | None
    ) -> Example | Unusable:
        """Returns the example with all of a .txt as caption, and the fields of a .json object."""
        try:
            row = json.loads(record) if record else {}
        except UnicodeError:
            return Unusable(key, "caption-not-utf8")
        except (ValueError, RecursionError):
            return Unusable(key, "caption-unreadable")
        if not isinstance(row, dict):
            return Unusable(key, "caption-unreadable")
        return self.example(key, picture, row | {self.caption: [text, row.get(self.caption)]})


def texts(value: Any) -> list[str]:
    """Returns the texts in a text, UTF-8 bytes, a list of those, or nothing: stripped, each once.

    Lines end in "\\n", even if they were written on Windows.

    Raises UnicodeError if one is not UTF-8, TypeError if the value is something else.
    """
    stripped = (text.replace("\r\n", "\n").strip() for text in _flat(value))
    return list(dict.fromkeys(text for text in stripped if text))


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from _flat(item)
    elif isinstance(value, bytes):
        yield _text(value.decode("utf-8-sig"))
    elif isinstance(value, str):
        yield _text(value)
    elif value is not None and value == value:  # tables write NaN for nothing
        raise TypeError(f"a caption is {type(value).__name__}; wanted a text")


def _text(value: str) -> str:
    """Returns `value`.

    Raises UnicodeError if it has surrogates, which stand for bytes that are not UTF-8, or zeros, as
    UTF-16 has.
    """
    if "\0" in value:
        raise UnicodeError("a text has zeros")
    value.encode("utf-8")
    return value


def metadata(row: Row) -> Row:
    """Returns the scalars of a row under the names that rules read, JSON-serialisable.

    Numbers that are not finite become None; bytes, lists and other non-scalars are left out.
    """
    values = {_scalar(name): _scalar(value) for name, value in row.items() if _is_scalar(value)}
    for name, aliases in ALIASES.items():
        found = [values.pop(n) for n in (name, *aliases) if n in values]
        if found:
            values[name] = next((v for v in found if v is not None), None)
    return values | {n: _number(values[n], kind) for n, kind in NUMBERS.items() if n in values}


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, (str, bool, int, float))


def _scalar(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # more than a record can hold
        return None
    return value


def _number(value: Any, kind: Callable[[float], float]) -> float | None:
    """Returns a number, also from the text of a CSV file; None if it is not a number."""
    try:
        number = float(value)
        return _scalar(kind(number)) if math.isfinite(number) else None
    except (TypeError, ValueError, OverflowError):
        return None


def _language(value: Any) -> str:
    """Returns the ISO 639-1 code of "en", "EN", "zh-CN" and the like, "" for other languages."""
    code = str(value).lower().replace("_", "-").split("-")[0]
    return code if code in LANGUAGES else ""
