"""From a source to a data set on disk: pictures to latents, captions to LLM features.

Each stage finds its own work done and writes only what is missing.
"""

import pathlib
from collections.abc import Iterable, Iterator

import msgpack
import numpy as np
from tqdm import tqdm

from lidit_jax import errors, files
from lidit_jax.data import buckets, filters, records, sources
from lidit_jax.data.records import Dataset, FeatureStore
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.text import encode, llm
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.config import Config, DataConfig
from lidit_jax.training.inputs import check_store, recipe

JUDGED = 64  # prompts in prompts.txt


def prepare(config: Config, folder: pathlib.Path, batch_size: int = 32):
    """Makes the config's data set in `folder`, with a feature store per encoder.

    Raises InputError if the folder holds another recipe's data.
    """
    source = sources.make(config.data.source, **config.data.options)
    latent_size(make_codec(config.data.codec), config.data.size, config.model.patch)
    for encoder in config.encoders:  # a wrong path is told now, not after a day of pictures
        if not (folder / "features" / encoder.store / "encoder.json").exists():
            llm.check(encoder, llm.default_cache())
    records.claim(folder, recipe(config) | {"described": source.describe()})
    prepare_images(config.data, source, folder)
    dataset = Dataset(folder)
    for encoder in config.encoders:
        prepare_features(encoder, dataset, config.data.shards, batch_size)


def prepare_images(data: DataConfig, source: sources.Source, folder: pathlib.Path):
    """Writes captions, the prompts to judge a model by, latents and, last, dataset.json."""
    images = records.image_folder(folder, data.size)
    shards = records.shards_to_write(folder / "dataset.json", images, "latents", data.shards)
    if not shards:
        return
    codec = make_codec(data.codec)
    examples, dropped = filters.keep(source, data.rules)
    if not examples:
        raise errors.InputError(f"source {data.source!r} has no example left after rules {dropped}")
    with files.atomic(folder / "prompts.txt") as temporary:
        temporary.write_text("\n".join(source.prompts(JUDGED)) + "\n", encoding="utf-8")
    preview = data.preview or source.prompts(16)
    ids = write_captions(folder, examples, preview)
    paths = records.shard_paths(images, "latents", shards)
    progress = tqdm(total=len(examples), desc="pictures", unit="img", mininterval=2)
    for path, rows in zip(paths, records.shard_ranges(len(examples), shards)):
        if not path.exists():
            records.write_records(path, (_pack(examples[i], ids, codec, data.size) for i in rows))
        progress.update(len(rows))
    progress.close()
    written = records.read_shards(paths)
    mean, std = records.channel_statistics(
        records.unpack_image(written[i]).latent_HxWxC for i in range(len(written))
    )
    info = {
        "format": records.FORMAT,
        "count": len(examples),
        "captions": len(ids),
        "bins": [list(data.size)],
        "shards": shards,
        "dropped": dropped,
        "latent_mean": mean,
        "latent_std": std,
        "preview": [ids[text] for text in preview],
    }
    files.write_json(folder / "dataset.json", info)
    print(f"{folder}: {len(examples)} pictures, {len(ids)} captions, dropped {dropped}")


def write_captions(folder: pathlib.Path, examples: list, preview: Iterable[str]) -> dict[str, int]:
    """Writes every distinct caption once and returns its id (its row) by text."""
    languages = {c.text: c.language for e in examples for c in e.captions}
    languages |= {text: "en" for text in preview if text not in languages}
    rows = [msgpack.packb({"text": t, "language": lang}) for t, lang in languages.items()]
    records.write_records(folder / "captions.array_record", rows)
    return {text: i for i, text in enumerate(languages)}


def _pack(example, ids: dict[str, int], codec, size) -> bytes:
    image_HxWx3 = buckets.fit(example.image(*size), size)
    latent = np.asarray(codec.encode(image_HxWx3[None]))[0]
    captions = tuple(ids[c.text] for c in example.captions)
    return records.pack_image(records.ImageRecord(example.key, latent, captions, example.metadata))


def prepare_features(encoder: EncoderConfig, dataset: Dataset, shards: int, batch_size: int):
    """Writes one encoder's features of every caption and, last, encoder.json."""
    folder = dataset.folder / "features" / encoder.store
    texts = [c.text for c in dataset.captions]
    shards = records.shards_to_write(folder / "encoder.json", folder, "features", shards)
    if not shards:
        check_store(FeatureStore(folder), encoder)
        return
    model = llm.load(encoder, llm.default_cache())
    records.claim(folder, encode.identity(model))
    files.write_npy(folder / "prefix.npy", model.prefix())
    files.write_npy(folder / "null.npy", model.encode([""])[0])
    paths = records.shard_paths(folder, "features", shards)
    with tqdm(total=len(texts), desc=f"captions read by {encoder.name}", mininterval=2) as progress:
        for path, rows in zip(paths, records.shard_ranges(len(texts), shards)):
            if path.exists():
                progress.update(len(rows))
                continue
            part = [texts[i] for i in rows]
            features = encode.encode_captions(model, part, batch_size, progress.update)
            packed = (records.pack_features(f.hidden_SxE, f.truncated) for f in features)
            records.write_records(path, packed)
    statistics = encode.ChannelStatistics(model.width)
    written = records.read_shards(paths)
    for i, text in enumerate(texts):
        statistics.add(text, encode.Features(*records.unpack_features(written[i])))
    info = {"format": records.FORMAT, "shards": shards} | encode.describe(model, statistics)
    files.write_json(folder / "encoder.json", info)


def references(config: Config) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yields the captions and the uint8 picture of every example that the config trains on."""
    data = config.data
    examples, _ = filters.keep(sources.make(data.source, **data.options), data.rules)
    for example in examples:
        image_HxWx3 = buckets.fit(example.image(*data.size), data.size)
        yield tuple(c.text for c in example.captions), image_HxWx3
