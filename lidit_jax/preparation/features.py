"""Encodes the captions of a plan with one frozen LLM, shard by shard."""

import pathlib
from collections.abc import Iterable

import msgpack
import numpy as np
from tqdm import tqdm

from lidit_jax import files
from lidit_jax.data import dataset, records
from lidit_jax.data.dataset import Captions, FeatureStore
from lidit_jax.data.feature_codecs import FEATURE_CODECS
from lidit_jax.data.plan import Plan
from lidit_jax.share import Share, bounds
from lidit_jax.text import encode, llm
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.inputs import check_store

SAMPLE = 256  # captions from which int8 gets the mean and std of its channels


def store_folder(plan: Plan, encoder: EncoderConfig) -> pathlib.Path:
    return plan.folder / "features" / encoder.store


def shard_count(plan: Plan) -> int:
    """Returns the number of files for a store's captions: one per piece of the plan, none empty."""
    return min(plan.pieces, plan.info["captions"])


def is_whole(store: pathlib.Path, plan: Plan, shard: int) -> bool:
    """Returns whether a shard is written, for this plan's captions and the present channels.npy."""
    path = dataset.feature_path(store, shard, shard_count(plan))
    if not path.exists() or not path.with_suffix(".json").exists():
        return False
    marker, channels = read_marker(path), _channels(store)
    # Old markers, which lack this entry, are trusted.
    return marker.get("plan") == plan.identity and marker.get("channels", channels) == channels


def _channels(store: pathlib.Path) -> str | None:
    """Returns the checksum of the statistics that int8 uses, if there is such a file."""
    path = store / "channels.npy"
    return files.checksum(path) if path.exists() else None


def read_marker(shard: pathlib.Path) -> dict:
    """Returns a shard's marker. Raises InputError if it is missing or damaged."""
    path, holds = shard.with_suffix(".json"), ("sha256", "bytes", "statistics", "squared_error")
    return files.read_json(path, "marker of a shard", remedy=dataset.REMEDY, holds=holds)


def write(encoder: EncoderConfig, plan: Plan, share: Share):
    """Writes the shards of this share that are missing."""
    store, shards = store_folder(plan, encoder), shard_count(plan)
    missing = [i for i in share.of(shards) if not is_whole(store, plan, i)]
    if not missing and all((store / name).exists() for name in ("prefix.npy", "null.npy")):
        return
    captions = Captions(plan.folder, plan.info["captions"])
    model = llm.load(encoder, llm.default_cache())
    dataset.claim(store, encode.identity(model))
    files.write_npy(store / "prefix.npy", model.prefix())
    files.write_npy(store / "null.npy", model.encode([""])[0])
    if FEATURE_CODECS[encoder.codec].needs_channels:
        _write_channels(store / "channels.npy", model, captions)
    (store / "encoder.json").unlink(missing_ok=True)  # written again when all shards exist
    rows = {i: bounds(len(captions), i, shards) for i in missing}
    total = sum(map(len, rows.values()))
    with tqdm(total=total, desc=f"captions read by {encoder.name}", mininterval=2) as progress:
        for i in missing:
            texts = [captions[row].text for row in rows[i]]
            features = encode.encode_captions(model, texts, progress=progress.update)
            write_shard(store, plan, i, texts, features, encoder.codec)
    del model
    llm.give_back()


def _write_channels(path: pathlib.Path, model: llm.FrozenLLM, captions: Captions):
    """Writes mean and std per channel over evenly spaced captions, unless the file exists."""
    if path.exists():
        return
    sample = [captions[row].text for row in records.spaced(len(captions), SAMPLE)]
    statistics = encode.ChannelStatistics(model.width)
    for text, features in zip(sample, encode.encode_captions(model, sample)):
        statistics.add(text, features)
    channels_2xE = np.stack([statistics.mean_E, statistics.std_E])
    files.write_npy(path, channels_2xE.astype(np.float32), first=True)


def write_shard(
    store: pathlib.Path,
    plan: Plan,
    shard: int,
    texts: Iterable[str],
    features: Iterable[encode.Features],
    codec_name: str,
):
    """Writes one shard of a plan's captions and, last, its marker, from which encoder.json is made.

    The store must have its prefix.npy, for the width of features, and, for int8, its channels.npy.
    """
    path = dataset.feature_path(store, shard, shard_count(plan))
    codec, channels = dataset.feature_codec(store, codec_name), _channels(store)
    width = dataset.read_array(store / "prefix.npy").shape[1]
    statistics, squared_E = encode.ChannelStatistics(width), np.zeros(width)
    files.remove_leftovers(path)
    with records.writing(path, codec.compressed) as writer:
        for text, f in zip(texts, features, strict=True):
            statistics.add(text, f)
            packed = codec.pack(f.hidden_SxE)
            squared_E += ((codec.unpack(packed).astype(np.float64) - f.hidden_SxE) ** 2).sum(0)
            writer.write(msgpack.packb(packed))
    marker = {
        "plan": plan.identity,
        "channels": channels,
        "sha256": files.checksum(path),
        "bytes": path.stat().st_size,
    }
    marker |= {"statistics": statistics.to_json(), "squared_error": squared_E.tolist()}
    files.write_json(path.with_suffix(".json"), marker)


def finish(encoder: EncoderConfig, plan: Plan) -> list[str]:
    """Writes encoder.json if every shard is complete, else returns messages about what is missing.

    Raises InputError if the store is finished and was made with other settings.
    """
    store, shards = store_folder(plan, encoder), shard_count(plan)
    missing = [i for i in range(shards) if not is_whole(store, plan, i)]
    if missing:
        return [f"shards {', '.join(map(str, missing))} of {shards} of {store.name} are missing"]
    if (store / "encoder.json").exists():
        check_store(FeatureStore(store), encoder)
        return []
    statistics, squared_E, size = None, 0.0, 0
    for i in range(shards):
        marker = read_marker(dataset.feature_path(store, i, shards))
        statistics = statistics or encode.ChannelStatistics(len(marker["squared_error"]))
        statistics.merge(marker["statistics"])
        squared_E += np.asarray(marker["squared_error"])
        size += marker["bytes"]
    error_E = np.sqrt(squared_E / statistics.tokens) / statistics.std_E
    identity = dataset.read_recipe(store)
    info = (
        identity
        | encode.describe(encoder, statistics)
        | {
            "format": dataset.FORMAT,
            "shards": shards,
            "codec": encoder.codec,
            "prefix_len": len(dataset.read_array(store / "prefix.npy")),
            "bytes": size,
            # Of stored features against the LLM's own, in standard deviations of the channel.
            "error": {"mean": float(error_E.mean()), "worst_channel": float(error_E.max())},
        }
    )
    files.write_json(store / "encoder.json", info)
    return []
