"""A data set on disk: its layout, and how it is read.

<dataset>/
  recipe.json               the settings of the set, written first: a second run must agree
  plan.json  plan/          the decision about every row of the source (data/plan)
  captions.array_record     caption id (the row) -> text, language
  prompts.jsonl             prompts and image sizes for evaluating a model trained on this set
  images/piece-00000-of-00004.json   marks a complete piece: counts, checksums, statistics, drops
  images/<H>x<W>/latents-00000-of-00004.array_record
                            key, raw latent (bf16), caption ids, metadata
  ledger.jsonl              every example that was dropped or mended: key, reason
  dataset.json              format, counts, latent statistics, drops per rule; written last
  features/<encoder>/recipe.json              the settings of the features, written first
  features/<encoder>/prefix.npy  null.npy     the instruction's features; the empty prompt's
  features/<encoder>/channels.npy             mean and std per channel, for int8 standardisation
  features/<encoder>/features-00000-of-00008.array_record
                                              caption id (the row) -> kept tokens [S, E]
  features/<encoder>/features-00000-of-00008.json
                                              marks a complete shard: checksum, statistics
  features/<encoder>/encoder.json             model, template, statistics; written last

JSON files and arrays contain a hash of their own content; each record has ArrayRecord's own hash.
"""

import bisect
import functools
import itertools
import pathlib

import msgpack
import numpy as np

from lidit_jax import errors, files
from lidit_jax.data import records
from lidit_jax.data.buckets import Size
from lidit_jax.data.feature_codecs import FEATURE_CODECS, FeatureCodec
from lidit_jax.data.judging import TRAIN
from lidit_jax.data.plan import captions_path
from lidit_jax.share import bounds

FORMAT = 3
REMEDY = "delete it and run `prepare` again"
SYSTEMS_OWN = ("lost+found", "Thumbs.db", "desktop.ini")  # in a folder that looks empty to the user


def claim(folder: pathlib.Path, recipe: dict):
    """Marks `folder` as the data set or feature store of this recipe, or checks that it already is.

    Raises InputError, naming what differs, if the folder holds another recipe's data.
    """
    path = folder / "recipe.json"
    if not path.exists():
        there = (p.name for p in folder.iterdir()) if folder.exists() else ()
        strange = [name for name in there if not name.startswith(".") and name not in SYSTEMS_OWN]
        if strange and not path.exists():  # another process may just have written it
            raise errors.InputError(
                f"{folder} is not empty ({min(strange)}) and "
                "holds no data set; give an empty or new folder"
            )
        files.write_json(path, recipe, first=True)
    check_claimed(folder, recipe)


def check_claimed(folder: pathlib.Path, recipe: dict):
    """Raises InputError, naming what differs, if `folder` is not the data set of this recipe."""
    check_equal(read_recipe(folder, tuple(recipe.keys() & {"format"})), recipe, folder)


def read_recipe(folder: pathlib.Path, holds: tuple[str, ...] = ()) -> dict:
    """Returns the recipe of the data set or feature store in `folder`.

    Its `part` is "train" in sets that were made before there was another part.
    """
    path, what = folder / "recipe.json", "recipe of a data set"
    remedy = f"put back a copy of it, or remove {folder} and run `prepare` again"
    return {"part": TRAIN} | files.read_json(path, what, remedy=remedy, holds=holds)


def check_equal(found: dict, wanted: dict, where: pathlib.Path):
    """Raises InputError naming each entry of `wanted` that differs in `found`."""
    different = [
        f"{k} is {found.get(k)!r}, the config wants {v!r}"
        for k, v in wanted.items()
        if found.get(k) != v
    ]
    was, now = found.get("described") or {}, wanted.get("described", found.get("described")) or {}
    if was != now:
        changed = (k for k in was | now if was.get(k) != now.get(k))
        told = "; ".join(f"its {k} was {was.get(k)!r}, now {now.get(k)!r}" for k in changed)
        raise errors.InputError(
            f"the source has changed since {where} was made ({told}); "
            f"use another folder for its current content"
        )
    if different:
        raise errors.InputError(
            f"{where} was made with other settings: {'; '.join(different)}. "
            f"Change the config, or use another folder"
        )


def image_path(folder: pathlib.Path, size: Size, piece: int, pieces: int) -> pathlib.Path:
    """Returns the file with the pictures of one bin and one piece."""
    return records.shard_path(folder / "images" / f"{size[0]}x{size[1]}", "latents", piece, pieces)


def image_marker(folder: pathlib.Path, piece: int, pieces: int) -> pathlib.Path:
    """Returns the file that marks a piece as complete."""
    return folder / "images" / f"piece-{piece:05d}-of-{pieces:05d}.json"


def feature_path(store: pathlib.Path, shard: int, shards: int) -> pathlib.Path:
    return records.shard_path(store, "features", shard, shards)


def feature_codec(store: pathlib.Path, name: str) -> FeatureCodec:
    """Returns a store's codec, with the channel statistics if it standardises channels."""
    codec = FEATURE_CODECS[name]
    return codec(*read_array(store / "channels.npy")) if codec.needs_channels else codec()


def read_array(path: pathlib.Path) -> np.ndarray:
    """Reads one array of a feature store. Raises InputError if it is missing or damaged."""
    return files.read_npy(path, f"{REMEDY}, it makes what is missing")


# The keys that are read from dataset.json and encoder.json.
OF_SET = ("bins", "captions", "codec_identity", "count", "downsample", "latent_mean", "latent_std")
OF_SET += ("preview",)
OF_STORE = ("bytes", "captions", "codec", "longest", "mean", "prefix_len", "shards", "std", "width")


# Limits, in captions and bytes, of a store's cache: some captions recur, such as class names.
_RECENT, _RECENT_BYTES = 1024, 2**27


class FeatureStore:
    """One encoder's features, by caption id. `stored` is `_stored` with a cache."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        made = sorted(path.parent.name for path in folder.parent.glob("*/encoder.json"))
        what = (
            f"text features {folder.name!r} (there are features of {', '.join(made) or 'no LLM'}; "
            f"run `prepare` to completion with the same --config.text... flags)"
        )
        self.info = _read_info(folder / "encoder.json", what, OF_STORE)
        self.codec = feature_codec(folder, self.info["codec"])
        shards, captions = self.info["shards"], self.info["captions"]
        self._rows = records.Shards(
            [feature_path(folder, i, shards) for i in range(shards)],
            [len(bounds(captions, i, shards)) for i in range(shards)],
        )
        each = max(self.info["bytes"] / captions, 1)
        self.stored = functools.lru_cache(min(_RECENT, int(_RECENT_BYTES / each)))(self._stored)

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, caption: int) -> np.ndarray:
        """Returns the kept tokens of one caption: [S, E], bf16 (codec bf16) or f32 (int8)."""
        return self.codec.states(*self.stored(caption))

    def _stored(self, caption: int) -> tuple[np.ndarray, ...]:
        """Returns the arrays that the codec stored for one caption, one row per kept token.

        Raises BadRecord if the caption does not exist, or its features cannot be read, do not have
        the store's shape or are not finite.
        """
        if not 0 <= caption < self.info["captions"]:
            why = f"{self.folder.name} has {len(self)} captions, but none with id {caption}"
            raise records.BadRecord(why)
        packed = self.packed(caption)
        try:
            stored = self.codec.stored(msgpack.unpackb(packed))
            tokens, width = stored[0].shape
        except records.MALFORMED as e:
            raise self._rows.bad(caption, f"is not a features record ({type(e).__name__})") from e
        whole = all(len(a) == tokens for a in stored)
        if width != self.info["width"] or not 0 < tokens <= self.info["longest"] or not whole:
            raise self._rows.bad(caption, f"has features of shape {stored[0].shape}")
        if not self.codec.is_finite(*stored):
            raise self._rows.bad(caption, "has features that are not finite")
        return stored

    def packed(self, caption: int) -> bytes:
        """Returns one caption's record, as it is in the file."""
        return self._rows[caption]

    @property
    def prefix_PxE(self) -> np.ndarray:
        return read_array(self.folder / "prefix.npy")

    @property
    def null_ZxE(self) -> np.ndarray:
        return read_array(self.folder / "null.npy")


class Dataset:
    """A data set on disk, opened for reading.

    Rows are numbered bin by bin: `counts` has the number of rows of each of `bins`, `latent_shapes`
    the (H, W, C) of its latents.

    Raises InputError if the folder holds no data set or one of another format, or if a whole file
    of pictures or captions is missing or damaged.
    """

    def __init__(self, folder: str | pathlib.Path):
        self.folder = pathlib.Path(folder)
        self.info = _read_info(
            self.folder / "dataset.json", "finished data set (run `prepare` first)", OF_SET
        )
        self.mean_C = np.asarray(self.info["latent_mean"], np.float32)
        self.std_C = np.asarray(self.info["latent_std"], np.float32)
        self.bins: list[Size] = [tuple(b["size"]) for b in self.info["bins"]]
        self.counts: list[int] = [sum(b["counts"]) for b in self.info["bins"]]
        self._ends = list(itertools.accumulate(self.counts))
        down, channels = self.info["downsample"], len(self.mean_C)
        self.latent_shapes = [(h // down, w // down, channels) for h, w in self.bins]
        self._images = records.Shards(
            self.image_paths(), [n for b in self.info["bins"] for n in b["counts"] if n]
        )
        self.captions = Captions(self.folder, self.info["captions"])

    def image_paths(self) -> list[pathlib.Path]:
        """Returns the picture files, bin by bin; none for a piece without pictures of the bin."""
        return [
            image_path(self.folder, tuple(b["size"]), i, len(b["counts"]))
            for b in self.info["bins"]
            for i, count in enumerate(b["counts"])
            if count
        ]

    def __len__(self):
        return len(self._images)

    def image(self, row: int) -> records.ImageRecord:
        """Returns one picture with its raw latent.

        Raises BadRecord if it is unreadable, or its latent is not finite or not in its bin's shape.
        """
        packed = self.packed(row)
        try:
            image = records.unpack_image(packed)
        except records.BadRecord as e:
            raise self._images.bad(row, e.why, e.key) from e
        wanted = self.latent_shapes[self.bin_of(row)]
        if image.latent_HxWxC.shape != wanted:
            why = f"has a latent of shape {image.latent_HxWxC.shape}, not {wanted}"
            raise self._images.bad(row, why, image.key)
        return image

    def bin_of(self, row: int) -> int:
        """Returns the index of a row's bin."""
        return bisect.bisect_right(self._ends, row)

    def rows_of(self, bin: int) -> range:
        """Returns the rows of a bin."""
        return range(self._ends[bin] - self.counts[bin], self._ends[bin])

    def packed(self, row: int) -> bytes:
        """Returns one picture's record, as it is in the file."""
        return self._images[row]

    @property
    def statistics(self) -> dict:
        """What may differ between data sets of the same recipe, as JSON values."""
        return {"counts": self.counts} | {k: self.info[k] for k in ("latent_mean", "latent_std")}

    def features(self, encoder: str) -> FeatureStore:
        return FeatureStore(self.folder / "features" / encoder)


class Captions:
    """The texts of a planned data set, by caption id; `count` is their number, if known."""

    def __init__(self, folder: pathlib.Path, count: int | None = None):
        counts = None if count is None else [count]
        self._rows = records.Shards([captions_path(folder)], counts)

    def __len__(self):
        return len(self._rows)

    def __getitem__(self, caption: int) -> records.CaptionRecord:
        return records.CaptionRecord(**msgpack.unpackb(self._rows[caption]))


def _read_info(path: pathlib.Path, what: str, holds: tuple[str, ...]) -> dict:
    info = files.read_json(path, what, remedy=REMEDY)
    if info.get("format") != FORMAT:
        raise errors.InputError(
            f"{path.parent} has data set format {info.get('format')}, but this version reads "
            f"{FORMAT}; prepare it again"
        )
    files.check_holds(path, what, info, holds, REMEDY)
    return info
