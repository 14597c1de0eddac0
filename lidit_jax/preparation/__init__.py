"""From a source to a data set on disk: a plan, then pictures to latents and captions to features.

Each stage keeps its finished work and writes only what is missing. Plan, pictures and features are
in pieces, each complete or absent, so several machines can share a data set: each calls `prepare`
with its own share of the pieces, and the one that finds the last piece written finishes the set.

plan      the decision about every source row      images    pieces of the plan to latents
features  captions to an LLM's features            estimate  what a data set will cost
verify    every problem of a data set              report    a page about a data set
"""

import contextlib
import dataclasses
import pathlib
import tempfile
from collections.abc import Iterable, Iterator

import numpy as np

from lidit_jax import errors
from lidit_jax.data import buckets, dataset, decoding, filters, judging, planning, sources
from lidit_jax.data.plan import Plan, identity_path
from lidit_jax.data.sources.example import Source
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.preparation import features, images
from lidit_jax.share import WHOLE, Share
from lidit_jax.text import llm
from lidit_jax.text.instruct import EncoderConfig
from lidit_jax.training.config import Config
from lidit_jax.training.inputs import recipe


def prepare(config: Config, folder: pathlib.Path, share: Share = WHOLE):
    """Makes the config's data set in `folder`,
    with a feature store per encoder, or this share of it.

    Raises InputError if the folder holds another recipe's data.
    """
    pieces = Plan(folder).pieces if (folder / "plan.json").exists() else config.data.shards
    if share.count > pieces:
        raise errors.InputError(
            f"{share.count} shares of {pieces} pieces; use at most data.shards, as it was when the "
            f"set was started"
        )
    plan, source = prepare_plan(config, folder)
    images.write(config.data, source, plan, share)
    unfinished = images.finish(config.data, plan)
    for encoder in config.encoders:
        features.write(encoder, plan, share)
        unfinished += features.finish(encoder, plan)
    for line in unfinished:
        print(line)
    if unfinished:
        print(
            "when the other shares are done: run the same command with --merge instead of --share"
        )
    else:
        _print_complete(plan)


def prepare_plan(config: Config, folder: pathlib.Path) -> tuple[Plan, Source]:
    """Makes the plan of the config's data set, after checking all that can be checked before."""
    source, wanted = sources.make(config.data.source, **config.data.options), recipe_of(config)
    for path in sources.folders(config.data.options):
        raw = pathlib.Path(path).expanduser()
        if folder.resolve().is_relative_to(raw.resolve()):
            raise errors.InputError(
                f"{folder} is inside {raw}, its own source; give another --data"
            )
    check_encoders(config.encoders, folder)  # report a wrong path now, not after a day of pictures
    begun = (folder / "recipe.json").exists()
    described = source.describe()
    described["options"] = sources.placeless(described["options"])
    try:
        dataset.claim(folder, recipe(config) | {"described": described})
    except errors.InputError as e:
        if begun and not any((folder / made).exists() for made in ("images", "features")):
            raise errors.InputError(f"{e}; or remove {folder}, which holds only a plan") from e
        raise
    try:
        return planning.make(source, wanted, folder), source
    except Exception:
        if not begun and not identity_path(folder).exists():
            # Nothing was made; another recipe may have the folder.
            (folder / "recipe.json").unlink(missing_ok=True)
            for empty in (folder / "plan", folder):
                with contextlib.suppress(OSError):
                    empty.rmdir()
        raise


def check_encoders(encoders: Iterable[EncoderConfig], folder: pathlib.Path):
    """Raises InputError for an unavailable LLM whose features are not in the data set yet."""
    for encoder in encoders:
        if not (folder / "features" / encoder.store / "encoder.json").exists():
            llm.check(encoder, llm.default_cache())


def merge(config: Config, folder: pathlib.Path):
    """Finishes a data set that other processes wrote; makes no piece of it.

    Raises InputError naming the pieces that are missing.
    """
    plan = Plan(folder)
    dataset.check_claimed(folder, recipe(config))
    unfinished = images.finish(config.data, plan)
    for encoder in config.encoders:
        unfinished += features.finish(encoder, plan)
    if unfinished:
        raise errors.InputError(f"{folder} is not complete: {'; '.join(unfinished)}")
    _print_complete(plan)


def _print_complete(plan: Plan):
    count = dataset.Dataset(plan.folder).info["count"]
    print(f"{plan.folder} is complete: {count:,} pictures, {plan.info['captions']:,} captions")


def recipe_of(config: Config) -> judging.Recipe:
    """Returns how the config's source is planned.

    Raises InputError if a bin is not divisible by what VAE and network need.
    """
    data = config.data
    bins = buckets.make_bins(data.bins, data.size, data.bin_step)
    codec = make_codec(data.codec)
    latent_size(codec, data.size, config.cells, config.cells_by)
    try:
        for size in bins.sizes:
            latent_size(codec, size, config.cells, config.cells_by)
    except errors.InputError as e:
        unit = codec.downsample * config.cells
        raise errors.InputError(f"bins {data.bins}: {e}, with a data.bin_step of {unit}") from e
    return judging.Recipe(
        bins=bins,
        side=min(data.size),
        rules=filters.expand(data.rules),
        pieces=data.shards,
        least=data.min_bin,
        limit=data.limit,
        hold_out=data.hold_out,
        part=data.part,
        preview=data.preview,
    )


def references(config: Config) -> Iterator[tuple[tuple[str, ...], np.ndarray | None]]:
    """Yields captions and uint8 training picture of every example that the config's data set plans.

    None stands for a picture that cannot be decoded. Plans the source anew, without a data set.
    """
    data = config.data
    source = sources.make(data.source, **data.options)
    with tempfile.TemporaryDirectory() as folder:
        plan = planning.make(source, recipe_of(config), pathlib.Path(folder))
        texts = dataset.Captions(plan.folder, plan.info["captions"])
        for i in range(plan.pieces):
            for row, job in images.planned(source, plan, i):
                captions = tuple(texts[c].text for c in row.captions + row.synthetic)
                yield captions, decoding.decode(job).pixels_HxWx3


def held_out(config: Config) -> Config:
    """Returns the config for all the pictures that a config holds out, at its own size.

    Raises InputError if it holds out none.
    """
    data = dataclasses.replace(
        config.data, part=judging.HELD_OUT, bins="square", bin_step=0, limit=0
    )
    return dataclasses.replace(config, data=data)
