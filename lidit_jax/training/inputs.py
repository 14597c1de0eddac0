"""Opens a prepared data set for training and checks it against the config."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np
from flax import nnx

from lidit_jax import errors
from lidit_jax.data import dataset, filters, overlap, pipeline, sources
from lidit_jax.data.dataset import Dataset, FeatureStore
from lidit_jax.models.lidit import LiDiT
from lidit_jax.models.vae import discriminator, latent_size, make_codec, perceptual
from lidit_jax.text import llm
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.config import Config


def recipe(config: Config) -> dict:
    """Returns what determines the images and captions of a data set, but not its text features.

    Raises InputError if the VAE is not the one that `data.codec_hash` names.
    """
    data, codec = config.data, make_codec(config.data.codec).identity()
    if data.codec_hash and data.codec_hash != codec.get("hash"):
        raise errors.InputError(
            f"{data.codec} is the VAE {codec.get('hash')}, but data.codec_hash is {data.codec_hash}"
        )
    return {
        "format": dataset.FORMAT,
        "source": data.source,
        "options": sources.placeless(data.options),
        "size": list(data.size),
        "bins": data.bins,
        "bin_step": data.bin_step,
        "min_bin": data.min_bin,
        "codec": codec,
        "rules": list(data.rules),
        "rules_hash": filters.rules_hash(filters.expand(data.rules)),
        "limit": data.limit,
        "hold_out": data.hold_out,
        "part": data.part,
        "preview": list(data.preview),
    }


def check_store(store: FeatureStore, encoder: EncoderConfig):
    """Raises InputError if the features were written with settings other than `encoder`'s."""
    wanted = {
        k: getattr(encoder, k)
        for k in ("model", "instruction", "template", "layer", "max_prompt_tokens", "codec")
    }
    dataset.check_equal(store.info, wanted, store.folder)
    measured = {name: store.info[name] for name in ("width", "prefix_len")}
    for name, found in (measured | {"null_len": len(store.null_ZxE)}).items():
        value = getattr(encoder, name)
        if value and value != found:
            raise errors.InputError(
                f"{store.folder} has {name} {found}, but the config says {value}; set it to 0 or "
                f"prepare again"
            )


def reads_alike(known: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> bool:
    """Returns whether two LLMs are the same, by features of the instruction and the empty prompt.

    Each gives [P, E] and [Z, E]. They may differ by a twentieth, as much as a change of precision
    causes. The very first token, an attention sink that dwarfs every other, is ignored.
    """
    if [a.shape for a in known] != [a.shape for a in found]:
        return False
    first = min(len(known[0]), 1)
    known, found = (np.concatenate(a)[first:] for a in (known, found))
    return bool(np.linalg.norm(found - known) <= 0.05 * np.linalg.norm(known))


def check_reads_alike(reader: llm.FrozenLLM, known: nnx.State):
    """Raises InputError unless an LLM is the one that a run was trained with.

    known: the model's constants of this LLM.
    """
    encoder = reader.config
    was = (known["prefix_PxE"][...], known["null_ZxE"][...])
    if not reads_alike(was, (reader.prefix(), reader.encode([""])[0])):
        raise errors.InputError(
            f"{encoder.model} encodes the instruction or the empty prompt differently than when "
            f"the run was trained; its weights are not those of encoder {encoder.name!r}"
        )


def open_pictures(config: Config, folder: pathlib.Path) -> pipeline.Reader:
    """Opens a data set of images, in [-1, 1], to train a VAE on.

    Raises InputError if the data set is not the one the config describes.
    """
    return pipeline.Reader(_open(config, folder), [], config.seed)


def _open(config: Config, folder: pathlib.Path) -> Dataset:
    opened = Dataset(folder)
    dataset.check_claimed(folder, recipe(config))
    _check_sizes(config, opened)
    advice = " (prepare with a larger data.min_bin)" if len(opened.bins) > 1 else ""
    for size, count in zip(opened.bins, opened.counts):
        if count < config.train.batch_size and jax.process_index() == 0:
            print(
                f"bin {size[0]} x {size[1]} has only {count} pictures, fewer than a batch: some "
                f"repeat within one{advice}"
            )
    return opened


def _check_sizes(config: Config, opened: Dataset):
    """Raises InputError unless the networks can take images of every bin."""
    for size in opened.bins:
        latent_size(make_codec(config.data.codec), size, config.cells, config.cells_by)
    least = min(min(size) for size in opened.bins)
    for judge, used, needed, without in (
        (
            "discriminator", config.vae.discriminator_weight, discriminator.LEAST_SIDE,
            "discriminator_weight=0",
        ),
        ("perceptual loss", config.vae.perceptual, perceptual.LEAST_SIDE, "perceptual=''"),
    ):  # fmt: skip
        if config.task == "vae" and used and least < needed:
            raise errors.InputError(
                f"{opened.folder} has pictures of {least} px, but the {judge} needs {needed}; use "
                f"larger pictures, or vae.{without}"
            )


def open_inputs(config: Config, folder: pathlib.Path) -> tuple[Config, pipeline.Reader, dict]:
    """Opens a prepared data set for training.

    Returns the config with the measured widths and lengths of the encoders, the reader, and the
    model's constants. Raises InputError if the data set is not the one the config describes.
    """
    opened = _open(config, folder)
    stores = _stores(config, opened)
    measured = []
    for encoder, store in zip(config.encoders, stores):
        sizes = {"width": store.info["width"], "prefix_len": store.info["prefix_len"]}
        measured.append(dataclasses.replace(encoder, **sizes, null_len=len(store.null_ZxE)))
    constants = LiDiT.constants(
        opened.mean_C,
        opened.std_C,
        [
            {
                "mean_E": np.asarray(s.info["mean"], np.float32),
                "std_E": np.asarray(s.info["std"], np.float32),
                "prefix_PxE": s.prefix_PxE,
                "null_ZxE": s.null_ZxE,
            }
            for s in stores
        ],
    )
    data = dataclasses.replace(
        config.data, codec_hash=opened.info["codec_identity"].get("hash", "")
    )
    config = dataclasses.replace(config, data=data, encoders=tuple(measured))
    return config, pipeline.Reader(opened, stores, config.seed), constants


def _stores(config: Config, opened: Dataset) -> list[FeatureStore]:
    """Returns the feature stores of the config's encoders; InputError if settings differ."""
    stores = [opened.features(e.store) for e in config.encoders]
    for encoder, store in zip(config.encoders, stores):
        check_store(store, encoder)
    return stores


def open_held_out(
    config: Config, folder: pathlib.Path, trained_on: pipeline.Reader
) -> pipeline.Reader:
    """Opens a data set to score a run that trains on another; its source may differ.

    config: with measured sizes.

    Raises InputError if the model could not read it, or if it has images that are trained on, as
    far as recipes show.
    """
    opened, ours = Dataset(folder), trained_on.dataset.folder
    theirs = dataset.read_recipe(folder, ("codec", "hold_out"))
    known = dataset.read_recipe(ours, ("codec", "hold_out"))
    dataset.check_equal(theirs, {"codec": known["codec"]}, folder)
    if overlap.share_pictures(known, theirs):
        raise errors.InputError(
            f"{folder} has pictures that are trained on, from the source of {ours}; prepare both "
            f"with the same data.hold_out, such as 0.05, and this one with data.part=held_out"
        )
    if jax.process_index() == 0 and (alike := overlap.count_alike(ours, folder)):
        print(
            f"{alike:,} of the {len(opened):,} pictures of {folder} have the key, size and a "
            f"caption of one that is trained on; if they are the same, prepare both with "
            f"data.hold_out, this one with data.part=held_out"
        )
    _check_sizes(config, opened)
    stores = _stores(config, opened) if config.task == "diffusion" else []
    for encoder, store, other in zip(config.encoders, stores, trained_on.stores):
        if not reads_alike(*((s.prefix_PxE, s.null_ZxE) for s in (other, store))):
            raise errors.InputError(
                f"{store.folder} was written by a different LLM than {other.folder}, though both "
                f"name {encoder.model}; prepare it again with the LLM that is there now"
            )
    return pipeline.Reader(opened, stores, seed=0)
