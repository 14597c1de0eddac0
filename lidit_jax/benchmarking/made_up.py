"""A data set of noise, with rows as large as real ones, written by the code that writes real ones.

No picture is drawn and no LLM is run: latents and hidden states are made up. Planning, files,
codecs, markers and statistics are those of `prepare`.
"""

import dataclasses
import pathlib
import zlib
from collections.abc import Iterator

import numpy as np

from lidit_jax import files
from lidit_jax.benchmarking import assumed
from lidit_jax.data import dataset, judging, planning
from lidit_jax.data.dataset import Dataset
from lidit_jax.data.pipeline import Reader
from lidit_jax.data.plan import Plan
from lidit_jax.data.sources.example import Caption, Drawing, Example
from lidit_jax.models.vae import make_codec
from lidit_jax.preparation import features, images, recipe_of
from lidit_jax.share import WHOLE, bounds
from lidit_jax.text import encode
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.config import Config

ASPECTS = ((1, 1), (3, 4), (4, 3))  # height, width; pictures take them in turn
SHORTEST, USUAL, LONGEST = 20, 60, 100  # tokens of a caption, end token included: least, mean, most
_POOL = 1024  # tokens of noise; a caption is a run of them, so no record holds one twice


@dataclasses.dataclass(frozen=True)
class Made:
    """What to make up: rows, one caption each, for the bins, encoders and seed of a config."""

    config: Config
    rows: int

    def recipe(self) -> dict:
        """Returns the recipe that the folder is bound to; another recipe needs another folder."""
        stores = [e.store for e in self.config.encoders]
        widths = [e.width for e in self.config.encoders]
        size, codec = list(self.config.data.size), self.config.data.codec
        return {
            "format": dataset.FORMAT, "source": "made up", "rows": self.rows, "size": size,
            "bins": [self.config.data.bins, self.config.data.bin_step],
            "codec": codec, "stores": stores, "widths": widths,
        }  # fmt: skip


def made(config: Config, rows: int, codec: str) -> Made:
    """Returns what to make up for a config: LLM widths as in `assumed`, features in `codec`.

    Raises InputError for a config of a task other than diffusion.
    """
    config = assumed.measured(config, assumed.Lengths())
    data = dataclasses.replace(
        config.data, rules=(), limit=0, hold_out=0.0, part=judging.TRAIN, min_bin=1, preview=()
    )
    encoders = tuple(dataclasses.replace(e, codec=codec) for e in config.encoders)
    return Made(dataclasses.replace(config, data=data, encoders=encoders), rows)


def write(wanted: Made, folder: pathlib.Path):
    """Writes the data set, or the missing part of it.

    Raises InputError if the folder holds something else, or VAE and network do not fit the size.
    """
    config, noise = wanted.config, Noise(wanted)
    dataset.claim(folder, wanted.recipe())
    plan = planning.make(_Pictures(wanted.rows), recipe_of(config), folder)
    images.write(config.data, _Pictures(wanted.rows), plan, WHOLE, codec=noise)
    images.finish(config.data, plan, noise)
    for encoder in config.encoders:
        _write_features(encoder, plan)


def opened(wanted: Made, folder: pathlib.Path) -> Reader:
    """Returns a new reader of the data set, which shares no cache with other readers."""
    found = Dataset(folder)
    return Reader(found, [found.features(e.store) for e in wanted.config.encoders], 0)


class Noise:
    """Stands in for the config's VAE: same downsampling and channels, but every latent is noise."""

    def __init__(self, wanted: Made):
        codec = make_codec(wanted.config.data.codec)
        self.downsample, self.channels = codec.downsample, codec.channels
        self._rng = np.random.default_rng(0)

    def encode(self, images_BxHxWx3: np.ndarray) -> np.ndarray:
        B, H, W, _ = images_BxHxWx3.shape
        shape = (B, H // self.downsample, W // self.downsample, self.channels)
        return self._rng.standard_normal(shape, np.float32)

    def identity(self) -> dict:
        return {"name": "noise", "channels": self.channels}


class _Pictures:
    """`rows` blank drawings, each with a caption of its own."""

    def __init__(self, rows: int):
        self._rows = rows

    def __len__(self):
        return self._rows

    def piece(self, i: int, n: int) -> Iterator[Example]:
        for row in bounds(self._rows, i, n):
            blank = Drawing(_blank, f"{row}", ASPECTS[row % len(ASPECTS)])
            yield Example(f"{row}", blank, (Caption(f"made-up picture number {row}", "en"),))

    def prompts(self, count: int) -> list[str]:
        return []

    def describe(self) -> dict:
        return {"name": "made up", "rows": self._rows}


def _blank(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def _write_features(encoder: EncoderConfig, plan: Plan):
    """Writes one encoder's store; channels differ in mean and scale, like those of an LLM."""
    store, shards = features.store_folder(plan, encoder), features.shard_count(plan)
    rng = np.random.default_rng(zlib.crc32(encoder.name.encode()))
    mean_E = rng.standard_normal(encoder.width, np.float32)
    std_E = np.exp(rng.standard_normal(encoder.width, np.float32) / 2)
    pool_NxE = mean_E + std_E * rng.standard_normal((_POOL, encoder.width), np.float32)
    dataset.claim(store, {"layer": encoder.layer, "max_prompt_tokens": encoder.max_prompt_tokens})
    files.write_npy(store / "prefix.npy", pool_NxE[: encoder.prefix_len])
    files.write_npy(store / "null.npy", pool_NxE[: encoder.null_len])
    files.write_npy(store / "channels.npy", np.stack([mean_E, std_E]))
    for i in range(shards):
        if not features.is_whole(store, plan, i):
            rows = bounds(plan.info["captions"], i, shards)
            states = [_states(pool_NxE, row) for row in rows]  # views of the pool
            texts = [str(row) for row in rows]
            features.write_shard(store, plan, i, texts, states, encoder.codec)
    features.finish(encoder, plan)


def length(caption: int) -> int:
    """Returns a caption's token count, a function of its id: SHORTEST to LONGEST, mean USUAL."""
    spread = np.random.default_rng(caption).triangular(SHORTEST, USUAL, LONGEST)
    return int(round(spread))


def _states(pool_NxE: np.ndarray, caption: int) -> encode.Features:
    tokens = length(caption)
    start = np.random.default_rng((caption, 1)).integers(len(pool_NxE) - tokens)
    return encode.Features(pool_NxE[start : start + tokens], False)
