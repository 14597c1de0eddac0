"""Records in ArrayRecord files: how one is packed, and how files of them are written and read.

Every file is written under a temporary name and renamed, so it is whole or absent.
"""

import contextlib
import dataclasses
import errno
import hashlib
import os
import pathlib
import resource
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from lidit_jax import errors, files


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """One picture: its raw latent (as the VAE gave it, not normalised) and its captions' ids."""

    key: str
    latent_HxWxC: np.ndarray
    captions: tuple[int, ...]
    synthetic: tuple[int, ...] = ()  # ids of captions that a captioning model wrote
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CaptionRecord:
    text: str
    language: str


def pack_image(record: ImageRecord) -> bytes:
    """Returns a picture as bytes, its latent in bf16."""
    fields = {f.name: getattr(record, f.name) for f in dataclasses.fields(record)}
    latent_HxWxC = fields.pop("latent_HxWxC")
    fields["shape"] = list(latent_HxWxC.shape)
    return msgpack.packb(fields | {"bf16": latent_HxWxC.astype(ml_dtypes.bfloat16).tobytes()})


def unpack_image(data: bytes) -> ImageRecord:
    """Returns the picture of `pack_image`, its latent in f32."""
    f = msgpack.unpackb(data)
    latent_HxWxC = np.frombuffer(f.pop("bf16"), ml_dtypes.bfloat16).reshape(f.pop("shape"))
    captions, synthetic = tuple(f.pop("captions")), tuple(f.pop("synthetic"))
    return ImageRecord(
        latent_HxWxC=latent_HxWxC.astype(np.float32), captions=captions, synthetic=synthetic, **f
    )


class Writer:
    """Writes one ArrayRecord file with random access to each record.

    compressed: by Zstandard; a reader finds out by itself.
    """

    def __init__(self, path: pathlib.Path, compressed: bool = True):
        options = "group_size:1" if compressed else "group_size:1,uncompressed"
        self._path, self._writer = path, ArrayRecordWriter(str(path), options)

    def write(self, record: bytes):
        """Raises OSError if the disk is full, or writing fails otherwise."""
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
            full = os.strerror(errno.ENOSPC) in str(e)
            why = str(e).split(";")[0]
            raise OSError(errno.ENOSPC if full else errno.EIO, why, str(self._path)) from e


@contextlib.contextmanager
def writing(path: pathlib.Path, compressed: bool = True) -> Iterator[Writer]:
    """Yields a writer of `path`, which is there when the block succeeds, and else is not."""
    with (
        files.atomic(path) as temporary,
        contextlib.closing(Writer(temporary, compressed)) as writer,
    ):
        yield writer


def write_records(path: pathlib.Path, records: Iterable[bytes]):
    """Writes one ArrayRecord file, atomically."""
    with writing(path) as writer:
        for record in records:
            writer.write(record)


def spaced(total: int, count: int) -> list[int]:
    """Returns `count` rows, evenly spaced over range(total); all of them if there are not so many."""
    count = min(total, count)
    return [i * total // count for i in range(count)]


def shard_path(folder: pathlib.Path, stem: str, i: int, shards: int) -> pathlib.Path:
    return folder / f"{stem}-{i:05d}-of-{shards:05d}.array_record"


def read_shards(paths: list[pathlib.Path]) -> "Shards":
    """Returns the files as one sequence. Each is held open.

    Raises InputError if one is missing or damaged, or if they are too many.
    """
    _allow_open_files(len(paths) + 256)
    for path in paths:
        if not path.exists():
            raise errors.InputError(
                f"shard {path} is missing; run `prepare` again, it continues where it stopped"
            )
    return Shards(paths)


class Shards:
    """Files of records as one random-access sequence of bytes."""

    def __init__(self, paths: list[pathlib.Path]):
        self._paths = paths
        for path in paths:
            try:
                ArrayRecordDataSource(str(path))
            except (RuntimeError, IndexError) as e:
                raise errors.InputError(
                    f"shard {path} is damaged ({_first_line(e)}); delete it and run `prepare` again"
                ) from e
        self._rows = ArrayRecordDataSource([str(p) for p in paths])

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> bytes:
        """Raises InputError if the record cannot be read."""
        try:
            return self._rows[row]
        except (RuntimeError, IndexError) as e:
            raise errors.InputError(
                f"record {row} of {self._paths[0].parent} is damaged ({_first_line(e)}); "
                f"`prepare --verify` says which file to delete"
            ) from e


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _allow_open_files(count: int):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > soft:
        if count > hard:
            raise errors.InputError(
                f"this data set needs {count} open files, and the system allows {hard}; raise it "
                f"(ulimit -n), or prepare with fewer data.shards"
            )
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def checksum(path: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
