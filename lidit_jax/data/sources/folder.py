"""Pictures in a folder, with their captions in files beside them or in one table.

    lake.jpg  lake.txt   the whole text is the caption
    hill.png  hill.json  {"caption": ..., "synthetic": ..., "aesthetic": 5.1, ...}

or `metadata.csv` / `metadata.jsonl` in the folder itself, with a column `file_name` (Hugging Face's
imagefolder); files beside the pictures are then ignored. Several rows of a picture are several
captions.
"""

import dataclasses
import functools
import os
import pathlib
import posixpath
import unicodedata
from collections.abc import Iterator
from typing import Any

from lidit_jax.data.sources import paths, table
from lidit_jax.data.sources.example import Example, Unusable
from lidit_jax.data.sources.fields import Fields, Row
from lidit_jax.data.sources.images import Encoded, FilePath
from lidit_jax.errors import InputError, is_unreachable
from lidit_jax.share import bounds

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
# Pictures that nothing here decodes; they are reported as "image-unknown".
OTHERS = (".avif", ".heic", ".heif", ".jp2", ".jxl")


class Folder:
    """The pictures below `path`, in order of name.

    The key is the name without suffix, or with it if a table has an earlier picture of that key.
    caption, synthetic: the JSON fields, or the table's columns, that hold a text or a list of
      texts; all others are metadata.
    All names are listed at once: for more than a few million pictures, use tars.
    Raises InputError if there is no such folder, no picture in it, or no such column in its table.
    """

    def __init__(
        self, path: str | os.PathLike, caption: str = "caption", synthetic: str = "synthetic"
    ):
        self.options = {"path": str(path), "caption": caption, "synthetic": synthetic}
        self._root = pathlib.Path(path).expanduser()
        self._fields = Fields(caption, synthetic)
        if not self._root.is_dir():
            raise InputError(f"source folder: no folder {path}; give one that holds pictures")
        self._files = set(paths.walk(self._root))
        pictures = [f for f in self._files if f.lower().endswith(SUFFIXES)]
        known = {_key(f) for f in pictures}
        others = (f for f in self._files if f.lower().endswith(OTHERS))
        pictures = sorted([*pictures, *(f for f in others if _key(f) not in known)])
        if not pictures:
            raise InputError(
                f"source folder: none of the {len(self._files)} files below {path} is a picture; "
                f"wanted {' '.join(SUFFIXES)}"
            )
        self._table = table.find(self._root)
        self._rows = self._read_table(pictures) if self._table else [(p, []) for p in pictures]

    def __len__(self) -> int:
        return len(self._rows)

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        read = self._tabled if self._table else self._beside
        for k in bounds(len(self), i, n):
            yield from read(*self._rows[k])

    def prompts(self, count: int) -> list[str]:
        return []

    def describe(self) -> dict[str, Any]:
        every = [self._root / name for name in sorted(self._files)]
        return {
            "name": "folder",
            "version": paths.fingerprint(every, self._root),
            "licence": "",
            "options": self.options,
        }

    def _read_table(self, pictures: list[str]) -> list[tuple[str, list[Row | None]]]:
        """Returns each picture's rows in the table, by name; one without rows has an empty row."""
        read = table.read(self._table, (self._fields.caption, self._fields.synthetic))
        self._fields.check({c for _, row in read for c in row or ()}, str(self._table))
        rows: dict[str, list[Row | None]] = {}
        for name, row in read:
            rows.setdefault(self._written(name), []).append(row)
        rows |= {picture: [{}] for picture in pictures if picture not in rows}
        first: dict[str, str] = {}
        twins = {name for name in sorted(rows) if first.setdefault(_key(name), name) != name}
        lines = {name for name in rows if name not in self._files and None in rows[name]}
        self._whole = twins | lines  # names that are keys with their suffix
        return sorted(rows.items(), key=lambda of: of[0])

    def _written(self, name: str) -> str:
        """Returns the file of a name in a table: "./a.jpg", "b\\a.jpg", composed accents or not."""
        if name in self._files:
            return name
        return self._there(posixpath.normpath(name.replace("\\", "/"))) or name

    def _there(self, name: str) -> str | None:
        """Returns the file of this name, if any, whether or not its accents are composed."""
        composed = unicodedata.normalize("NFC", name)
        return name if name in self._files else self._composed.get(composed)

    @functools.cached_property
    def _composed(self) -> dict[str, str]:
        """The files by their names in Unicode's composed form, which names on a Mac do not have."""
        return {unicodedata.normalize("NFC", name): name for name in self._files}

    def _tabled(self, name: str, rows: list[Row | None]) -> Iterator[Example | Unusable]:
        """Yields one example with the captions of all rows of a picture, and its unusable rows."""
        key = name if name in self._whole else _key(name)
        found = [self._of_row(name, key, row) for row in rows]
        good = [e for e in found if isinstance(e, Example)]
        for e in found:
            if isinstance(e, Unusable) and not (good and e.reason == "caption-missing"):
                yield e
        if good:
            captions = dict.fromkeys(c for e in good for c in e.captions)
            ordered = sorted(captions, key=lambda c: c.origin == "synthetic")
            yield dataclasses.replace(good[0], captions=tuple(ordered))

    def _of_row(self, name: str, key: str, row: Row | None) -> Example | Unusable:
        if row is None:
            return Unusable(key, "caption-unreadable")
        if name not in self._files:
            return Unusable(key, "image-missing")
        return self._fields.example(key, self._picture(name), row)

    def _beside(self, name: str, _: list) -> Iterator[Example | Unusable]:
        try:
            text, record = (self._read(_key(name), suffix) for suffix in (".txt", ".json"))
        except OSError as e:
            if is_unreachable(e):
                raise
            yield Unusable(_key(name), "caption-unreadable")
            return
        yield self._fields.example_of_files(_key(name), self._picture(name), text, record)

    def _read(self, key: str, suffix: str) -> bytes | None:
        names = (self._there(key + end) for end in (suffix, suffix.upper()))
        name = next(filter(None, names), None)
        return (self._root / name).read_bytes() if name else None

    def _picture(self, name: str) -> Encoded:
        return Encoded(FilePath(str(self._root / name)))


def _key(name: str) -> str:
    return os.path.splitext(name)[0]
