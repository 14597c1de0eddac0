"""Pictures and captions in Parquet files, as the Hugging Face hub stores them."""

import os
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from lidit_jax.data.sources import paths
from lidit_jax.data.sources.example import Example, Unusable
from lidit_jax.data.sources.fields import Fields, Row
from lidit_jax.data.sources.images import Encoded, InMemory
from lidit_jax.errors import InputError, check_installed, is_unreachable, unknown_name
from lidit_jax.share import bounds

BATCH = 32  # rows whose pictures are in memory at once, beside the pages that hold them
_READ = {"pre_buffer": False, "buffer_size": 2**20}  # else a whole row group, of any size, is


class _Group(NamedTuple):
    """A row group: its file, its index there, and the index of its first row."""

    path: pathlib.Path
    index: int
    first: int
    rows: int


class Parquet:
    """The rows of the files at `path`: a file, a folder (searched recursively) or a glob.

    image: a column of encoded pictures: binary, or a struct with a field `bytes`.
    caption, synthetic: columns with a text or a list of texts; other scalar columns are metadata.
    The key is the file's name and the row's number. A damaged row group gives its rows before the
    damage.
    Raises InputError if there is no file, one cannot be read, or a column is missing.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        image: str = "image",
        caption: str = "caption",
        synthetic: str = "synthetic",
    ):
        check_installed("source parquet", "data", "pyarrow")
        self.options = {
            "path": str(path),
            "image": image,
            "caption": caption,
            "synthetic": synthetic,
        }
        self._fields = Fields(caption, synthetic)
        self._paths = paths.find(path, ".parquet", "parquet")
        self._root = paths.common_root(self._paths)
        self._groups = [group for file in self._paths for group in self._checked_groups(file)]

    def __len__(self) -> int:
        return sum(group.rows for group in self._groups)

    def piece(self, i: int, n: int) -> Iterator[Example | Unusable]:
        for k in bounds(len(self._groups), i, n):
            yield from self._read(self._groups[k])

    def prompts(self, count: int) -> list[str]:
        return []

    def describe(self) -> dict[str, Any]:
        return {
            "name": "parquet",
            "version": paths.fingerprint(self._paths, self._root),
            "licence": "",
            "options": self.options,
        }

    def _checked_groups(self, path: pathlib.Path) -> Iterator[_Group]:
        """Checks the columns of a file, then yields the row groups in its footer."""
        import pyarrow
        from pyarrow import parquet

        try:
            with parquet.ParquetFile(path) as file:
                schema, footer = file.schema_arrow, file.metadata
        except (pyarrow.ArrowInvalid, OSError) as e:
            if is_unreachable(e):
                raise
            raise InputError(f"source parquet: cannot read {path}: {e}") from None
        self._check_columns(schema, str(path))
        first = 0
        for k in range(footer.num_row_groups):
            rows = footer.row_group(k).num_rows
            yield _Group(path, k, first, rows)
            first += rows

    def _check_columns(self, schema, where: str):
        image = self.options["image"]
        for name in (image, self.options["caption"], self.options["synthetic"]):
            if schema.names.count(name) > 1:
                raise InputError(f"{where} has two columns {name!r}; rename one")
        if image not in schema.names:
            raise unknown_name(f"column of {where} (data.options.image)", image, schema.names)
        if not _holds_bytes(schema.field(image).type):
            raise InputError(
                f"{where}: column {image!r} is {schema.field(image).type}; "
                "wanted binary, or a struct with the field bytes"
            )
        self._fields.check(schema.names, where)
        for option in ("caption", "synthetic"):
            name = self.options[option]
            if name in schema.names and _holds_no_texts(schema.field(name).type):
                raise InputError(
                    f"{where}: column {name!r} is {schema.field(name).type}; "
                    f"wanted texts, or lists of texts (data.options.{option})"
                )

    def _read(self, group: _Group) -> Iterator[Example | Unusable]:
        import pyarrow

        name = os.path.splitext(os.path.relpath(group.path, self._root))[0]
        due = group.first
        try:
            for row in self._rows(group):
                yield self._example(f"{name}/{due:08d}", row)
                due += 1
        except (pyarrow.ArrowInvalid, OSError) as e:
            if is_unreachable(e):
                raise
            lost = range(due, group.first + group.rows)
            yield from (Unusable(f"{name}/{row:08d}", "parquet-damaged") for row in lost)

    def _rows(self, group: _Group) -> Iterator[Row]:
        from pyarrow import parquet
        from pyarrow.types import is_struct

        with parquet.ParquetFile(group.path, **_READ) as file:
            wanted = {self.options[k] for k in ("image", "caption", "synthetic")}
            columns = [
                f"{f.name}.bytes"
                if f.name == self.options["image"] and is_struct(f.type)
                else f.name
                for f in file.schema_arrow
                if f.name in wanted or _is_scalar(f.type)
            ]
            batches = file.iter_batches(
                batch_size=BATCH, row_groups=[group.index], columns=columns, use_threads=False
            )
            for batch in batches:
                for row in zip(*(_values(column) for column in batch.columns)):
                    yield dict(zip(batch.schema.names, row))

    def _example(self, key: str, row: Row) -> Example | Unusable:
        image = row.pop(self.options["image"])
        content = image["bytes"] if isinstance(image, dict) else image
        if content is None:
            return Unusable(key, "image-missing")
        return self._fields.example(key, Encoded(InMemory(content)), row)


def _holds_bytes(kind) -> bool:
    from pyarrow import types

    if types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return types.is_binary(kind) or types.is_large_binary(kind)


def _holds_no_texts(kind) -> bool:
    """Returns whether a type is never a text: structs, maps, times, or lists of those."""
    from pyarrow import types

    if inner := getattr(kind, "value_type", None):
        return types.is_map(kind) or _holds_no_texts(inner)
    return types.is_struct(kind) or types.is_temporal(kind)


def _is_scalar(kind) -> bool:
    """Returns whether a type is text or a number."""
    from pyarrow import types

    kinds = (types.is_integer, types.is_floating, types.is_boolean)
    return any(is_kind(_plain(kind)) for is_kind in kinds) or _is_text(_plain(kind))


def _is_text(kind) -> bool:
    from pyarrow import types

    return types.is_string(kind) or types.is_large_string(kind)


def _plain(kind):
    """Returns the type of a column's values, dictionary-encoded or not."""
    from pyarrow import types

    return kind.value_type if types.is_dictionary(kind) else kind


def _values(column) -> list[Any]:
    """Returns a column's values; a text that is not UTF-8 has surrogates."""
    import pyarrow

    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if pyarrow.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        return _decoded(column.cast(_as_bytes(column.type)).to_pylist())


def _as_bytes(kind):
    """Returns a type of texts, or lists of texts, with bytes in place of texts."""
    import pyarrow

    if _is_text(kind):
        return pyarrow.large_binary() if pyarrow.types.is_large_string(kind) else pyarrow.binary()
    return pyarrow.list_(_as_bytes(kind.value_type))


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(v) for v in value]
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value
