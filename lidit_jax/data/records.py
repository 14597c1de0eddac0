"""A data set on disk: what is where, how it is written, and how it is read.

<dataset>/
  recipe.json               what the set is made of, written first: a second run must agree
  captions.array_record     caption id (the row) -> text, language
  prompts.txt               prompts to judge a model of this set by, one per line
  images/<H>x<W>/latents-00000-of-00004.array_record     key, raw latent (bf16), caption ids, metadata
  dataset.json              format, counts, latent statistics, drops per rule; written last
  features/<encoder>/recipe.json              what the features are made with, written first
  features/<encoder>/prefix.npy  null.npy     the instruction's features; the empty prompt's
  features/<encoder>/features-00000-of-00004.array_record    caption id (the row) -> kept tokens [S, E]
  features/<encoder>/encoder.json             model, template, statistics; written last

Every file is written under a temporary name and renamed, so it is whole or absent, and a
second run writes only what is missing.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import ml_dtypes
import msgpack
import numpy as np
from array_record.python.array_record_data_source import ArrayRecordDataSource
from array_record.python.array_record_module import ArrayRecordWriter

from lidit_jax import errors, files

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class ImageRecord:
    """One picture: its raw latent (as the codec gave it, not normalised) and its captions' ids."""

    key: str
    latent_HxWxC: np.ndarray
    captions: tuple[int, ...]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class CaptionRecord:
    text: str
    language: str


def pack_array(array: np.ndarray) -> dict:
    """Returns a float array as bf16 bytes with its shape."""
    return {"shape": list(array.shape), "bf16": array.astype(ml_dtypes.bfloat16).tobytes()}


def unpack_array(packed: dict) -> np.ndarray:
    """Returns the array of `pack_array`, as bf16."""
    return np.frombuffer(packed["bf16"], ml_dtypes.bfloat16).reshape(packed["shape"])


def pack_features(hidden_SxE: np.ndarray, truncated: bool) -> bytes:
    """Returns one caption's kept tokens, and whether the caption was cut, as bytes."""
    return msgpack.packb({"hidden": pack_array(hidden_SxE), "truncated": truncated})


def unpack_features(data: bytes) -> tuple[np.ndarray, bool]:
    f = msgpack.unpackb(data)
    return unpack_array(f["hidden"]), f["truncated"]


def pack_image(record: ImageRecord) -> bytes:
    fields = {"key": record.key, "captions": record.captions, "metadata": record.metadata}
    return msgpack.packb(fields | {"latent": pack_array(record.latent_HxWxC)})


def unpack_image(data: bytes) -> ImageRecord:
    f = msgpack.unpackb(data)
    latent_HxWxC = unpack_array(f["latent"]).astype(np.float32)
    return ImageRecord(f["key"], latent_HxWxC, tuple(f["captions"]), f["metadata"])


def write_records(path: pathlib.Path, records: Iterable[bytes]):
    """Writes one ArrayRecord file with random access to each record, atomically."""
    with files.atomic(path) as temporary:
        writer = ArrayRecordWriter(str(temporary), "group_size:1")
        try:
            for record in records:
                writer.write(record)
        finally:
            writer.close()


def shard_ranges(count: int, shards: int) -> list[range]:
    """Returns `shards` consecutive ranges that cover range(count), sizes equal to within one."""
    return [range(i * count // shards, (i + 1) * count // shards) for i in range(shards)]


def shard_paths(folder: pathlib.Path, stem: str, shards: int) -> list[pathlib.Path]:
    return [folder / f"{stem}-{i:05d}-of-{shards:05d}.array_record" for i in range(shards)]


def shards_to_write(marker: pathlib.Path, folder: pathlib.Path, stem: str, shards: int) -> int:
    """Returns into how many shards a set is to be written; 0 if it is whole.

    marker: the file that is written last. Where it is there but a shard of it is not, the set is
    completed in the number of shards that it has.
    """
    if not marker.exists():
        return shards
    shards = files.read_json(marker, "finished set")["shards"]
    return 0 if all(p.exists() for p in shard_paths(folder, stem, shards)) else shards


def read_shards(paths: list[pathlib.Path]) -> ArrayRecordDataSource:
    """Returns the files as one random-access sequence of bytes; InputError names one that is missing."""
    for path in paths:
        if not path.exists():
            raise errors.InputError(
                f"shard {path} is missing; run `prepare` again, it continues where it stopped"
            )
    for path in paths:
        try:
            ArrayRecordDataSource(str(path))
        except RuntimeError as e:
            raise errors.InputError(
                f"shard {path} is damaged ({str(e).splitlines()[0]}); delete it and run `prepare` again"
            ) from e
    return ArrayRecordDataSource([str(p) for p in paths])


def claim(folder: pathlib.Path, recipe: dict):
    """Makes `folder` the data set, or the feature store, of this recipe, or checks that it already is.

    Raises InputError, naming what differs, if the folder holds another recipe's data.
    """
    path = folder / "recipe.json"
    if path.exists():
        check_equal(files.read_json(path, "data set's recipe"), recipe, folder)
        return
    if folder.exists() and any(not p.name.endswith(".tmp") for p in folder.iterdir()):
        raise errors.InputError(
            f"{folder} is not empty and holds no data set; give an empty or new folder"
        )
    files.write_json(path, recipe)


def check_equal(found: dict, wanted: dict, where: pathlib.Path):
    """Raises InputError naming each entry of `wanted` that `found` has otherwise."""
    different = [
        f"{k} is {found.get(k)!r}, the config wants {v!r}"
        for k, v in wanted.items()
        if found.get(k) != v
    ]
    if different:
        raise errors.InputError(
            f"{where} was made otherwise: {'; '.join(different)}. Change the config, or use another folder"
        )


class FeatureStore:
    """One encoder's features, by caption id."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self.info = files.read_json(
            folder / "encoder.json",
            f"text features (run `prepare` with encoder {folder.name!r} in text.use)",
        )
        if self.info["format"] != FORMAT:
            raise errors.InputError(
                f"{folder} has format {self.info['format']}, this version reads {FORMAT}"
            )
        self._rows = read_shards(shard_paths(folder, "features", self.info["shards"]))

    def __len__(self):
        return len(self._rows)

    @functools.lru_cache(maxsize=1024)  # noqa: B019  captions recur, and a store lives as long as the run
    def __getitem__(self, caption: int) -> np.ndarray:
        """Returns the kept tokens of one caption: bf16 [S, E]."""
        return unpack_features(self._rows[caption])[0]

    @property
    def prefix_PxE(self) -> np.ndarray:
        return np.load(self.folder / "prefix.npy", allow_pickle=False)

    @property
    def null_ZxE(self) -> np.ndarray:
        return np.load(self.folder / "null.npy", allow_pickle=False)


class Dataset:
    """A data set on disk, opened for reading.

    Raises InputError if the folder holds none, or one of another format.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder)
        self.info = files.read_json(
            self.folder / "dataset.json", "finished data set (run `prepare` first)"
        )
        if self.info["format"] != FORMAT:
            raise errors.InputError(
                f"{folder} has data set format {self.info['format']}, this version reads {FORMAT}; prepare it again"
            )
        self.mean_C = np.asarray(self.info["latent_mean"], np.float32)
        self.std_C = np.asarray(self.info["latent_std"], np.float32)
        paths = [
            p
            for size in self.info["bins"]
            for p in shard_paths(image_folder(self.folder, size), "latents", self.info["shards"])
        ]
        self._images = read_shards(paths)

    def __len__(self):
        return len(self._images)

    def image(self, row: int) -> ImageRecord:
        """Returns one picture with its raw latent."""
        return unpack_image(self._images[row])

    def normalised(self, latent_HxWxC: np.ndarray) -> np.ndarray:
        """Returns a raw latent in model units: zero mean, unit variance per channel over the set."""
        return (latent_HxWxC - self.mean_C) / self.std_C

    @functools.cached_property
    def captions(self) -> list[CaptionRecord]:
        rows = read_shards([self.folder / "captions.array_record"])
        return [CaptionRecord(**msgpack.unpackb(rows[i])) for i in range(len(rows))]

    def features(self, encoder: str) -> FeatureStore:
        return FeatureStore(self.folder / "features" / encoder)


def image_folder(folder: pathlib.Path, size: tuple[int, int]) -> pathlib.Path:
    return folder / "images" / f"{size[0]}x{size[1]}"


def channel_statistics(arrays: Iterator[np.ndarray]) -> tuple[list[float], list[float]]:
    """Returns mean and standard deviation of each channel (last axis) over all arrays, in f64."""
    count, total, squares = 0, 0.0, 0.0
    for array in arrays:
        flat = array.reshape(-1, array.shape[-1]).astype(np.float64)
        count, total, squares = count + len(flat), total + flat.sum(0), squares + (flat**2).sum(0)
    mean = total / count
    return mean.tolist(), np.sqrt(np.maximum(squares / count - mean**2, 1e-12)).tolist()
