"""Records in ArrayRecord files: how they are packed, written and read.

Every file is written under a temporary name and renamed, so it is complete or absent.
"""

import bisect
import contextlib
import dataclasses
import errno
import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from operator import index
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from lidit_jax import errors, files

# For random access: no readahead, and a buffer of this many bytes per file.
_READING, _BUFFER = "readahead_buffer_size:0", 2**15


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """One picture: its raw latent (as the VAE gave it, not normalised) and its caption ids."""

    key: str
    latent_HxWxC: np.ndarray
    captions: tuple[int, ...]
    synthetic: tuple[int, ...] = ()  # ids of captions that a captioning model wrote
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CaptionRecord:
    text: str
    language: str


class BadRecord(errors.InputError):
    """An unusable record. `why` is a short reason; `key` is its picture's, "" if unknown."""

    def __init__(self, message: str, why: str = "", key: str = ""):
        super().__init__(message)
        self.why, self.key = why or message, key


# What msgpack, numpy and Python raise for bytes that are not a valid record.
MALFORMED = (ValueError, TypeError, LookupError, AttributeError, msgpack.UnpackException)


def pack_image(record: ImageRecord) -> bytes:
    """Returns a picture as bytes, its latent in bf16."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    latent_HxWxC = fields.pop("latent_HxWxC")
    fields["shape"] = list(latent_HxWxC.shape)
    return msgpack.packb(fields | {"bf16": latent_HxWxC.astype(ml_dtypes.bfloat16).tobytes()})


def unpack_image(data: bytes) -> ImageRecord:
    """Returns the picture that `pack_image` packed, its latent in f32.

    Raises BadRecord for other bytes, and for a latent that is not finite.
    """
    key = ""
    try:
        f = msgpack.unpackb(data)
        key = str(f["key"])
        latent_HxWxC = np.frombuffer(f.pop("bf16"), ml_dtypes.bfloat16).reshape(f.pop("shape"))
        latent_HxWxC = latent_HxWxC.astype(np.float32)  # isfinite takes a tenth of its time on bf16
        captions, synthetic = (tuple(map(index, f.pop(k))) for k in ("captions", "synthetic"))
        record = ImageRecord(latent_HxWxC=latent_HxWxC, captions=captions, synthetic=synthetic, **f)
    except MALFORMED as e:
        raise BadRecord(f"is not a picture record ({errors.in_one_line(e)})", key=key) from e
    if not np.isfinite(latent_HxWxC).all():
        raise BadRecord("has a latent that is not finite", key=key)
    return record


class Writer:
    """Writes one ArrayRecord file with random access to each record.

    compressed: with Zstandard; readers detect it.
    """

    def __init__(self, path: pathlib.Path, compressed: bool = True):
        options = "group_size:1" if compressed else "group_size:1,uncompressed"
        self._path, self._writer = path, ArrayRecordWriter(str(path), options)

    def write(self, record: bytes):
        """Raises OSError if the disk is full or the write fails for another reason."""
        with self._failing():
            self._writer.write(record)

    def close(self):
        with self._failing():
            self._writer.close()

    @contextlib.contextmanager
    def _failing(self):
        try:
            yield
        except RuntimeError as e:
            number = full.errno if (full := errors.full_disk(e)) else errno.EIO
            raise OSError(number, str(e).split(";")[0], str(self._path)) from e


@contextlib.contextmanager
def writing(path: pathlib.Path, compressed: bool = True) -> Iterator[Writer]:
    """Yields a writer of `path`, which exists afterwards only if the block succeeds."""
    with (
        files.atomic(path) as temporary,
        files.being_written(temporary),
        contextlib.closing(Writer(temporary, compressed)) as writer,
    ):
        yield writer


def write_records(path: pathlib.Path, records: Iterable[bytes]):
    """Writes one ArrayRecord file, atomically."""
    with writing(path) as writer:
        for record in records:
            writer.write(record)


def spaced(total: int, count: int) -> list[int]:
    """Returns `count` rows, evenly spaced over range(total); all of them if there are fewer."""
    count = min(total, count)
    return [i * total // count for i in range(count)]


def shard_path(folder: pathlib.Path, stem: str, i: int, shards: int) -> pathlib.Path:
    return folder / f"{stem}-{i:05d}-of-{shards:05d}.array_record"


class Shards:
    """Files of records as one random-access sequence of bytes, for any number of threads.

    Each file is held open. counts: the number of records that each should have; None: any number.
    Raises InputError if a file is missing or damaged, or if there are too many.

    The reader in array_record's own data source searches the whole file for one record, in time
    linear in its records; asked for a range of one record, the reader goes straight there.
    """

    def __init__(self, paths: list[pathlib.Path], counts: Sequence[int] | None = None):
        if len(paths) > files.allow_open():
            raise _too_many_files(len(paths))
        self._paths, self._readers, lengths = paths, [], []
        for path, count in zip(paths, counts or [None] * len(paths), strict=True):
            if not path.exists():
                raise errors.InputError(
                    f"shard {path} is missing; run `prepare` again, it continues where it stopped"
                )
            try:
                reader = _opened(path)
                found = reader.num_records()
            except (RuntimeError, IndexError) as e:
                if os.strerror(errno.EMFILE) in str(e):
                    raise _too_many_files(len(paths)) from e
                _check_reached(path, e)
                raise _damaged(path, errors.in_one_line(e)) from e
            if count is not None and found != count:
                raise _damaged(path, f"it has {found} records, but should have {count}")
            lengths.append(found)
            self._readers.append(reader)
        self._ends = list(itertools.accumulate(lengths, initial=0))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, row: int) -> bytes:
        """Raises BadRecord if the record cannot be read, Passing if its filesystem does not answer.

        Raises IndexError for a row that does not exist.
        """
        shard, record = self._place(row)
        try:
            return self._readers[shard].read(record, record + 1)[0]
        except (RuntimeError, IndexError) as e:
            _check_reached(self._paths[shard], e)
            raise self.bad(row, f"is damaged ({errors.in_one_line(e)})") from e

    def _place(self, row: int) -> tuple[int, int]:
        """Returns the index of a row's file, and the index of its record there."""
        row = index(row)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        shard = bisect.bisect_right(self._ends, row) - 1
        return shard, row - self._ends[shard]

    def bad(self, row: int, why: str, key: str = "") -> BadRecord:
        """Returns the error for a bad record."""
        shard, record = self._place(row)
        path, where = self._paths[shard], f"record {record} of"
        return BadRecord(
            f"{where} {path} {why}; if `prepare --verify` finds the file damaged, delete it and "
            f"run `prepare` again",
            f"{where} {path.parent.name}/{path.name} {why}",
            key,
        )


def _opened(path: pathlib.Path) -> ArrayRecordReader:
    """Returns a reader. Raises RuntimeError (the library does not) if the file cannot be read."""
    reader = ArrayRecordReader(str(path), _READING, file_reader_buffer_size=_BUFFER)
    if not reader.ok():
        reader.close()  # raises what is wrong
        raise RuntimeError("not an ArrayRecord file")
    return reader


def _check_reached(path: pathlib.Path, error: Exception):
    """Raises Passing if an error is not about the file: its filesystem does not answer."""
    if errors.is_unreachable(error):
        raise errors.Passing(f"cannot read {path}: {errors.in_one_line(error)}") from error


def _damaged(path: pathlib.Path, why: str) -> errors.InputError:
    return errors.InputError(f"shard {path} is damaged ({why}); delete it and run `prepare` again")


def _too_many_files(count: int) -> errors.InputError:
    return errors.InputError(
        f"this data set needs more open files ({count} in one part of it) than the system allows; "
        f"raise the limit (ulimit -Hn), or prepare with fewer data.shards"
    )
