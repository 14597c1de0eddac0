"""From a source to a data set on disk: a plan, then pictures to latents and captions to LLM features.

Each stage finds its own work done and writes only what is missing. Plan, pictures and features are
in pieces, each whole or absent, so several machines can share a data set: each calls `prepare` with
its own share of the pieces, and whoever finds the last one written finishes the set.

plan      what becomes of every row of the source     images    pieces of it to latents
features  captions to an LLM's features                share     which pieces are this process'
estimate  what it will cost    verify  every problem that it has    report  a page about it
"""

import pathlib
from collections.abc import Iterator

import numpy as np

from lidit_jax import errors
from lidit_jax.data import buckets, dataset, filters, planning, sources
from lidit_jax.data.sources.example import Example
from lidit_jax.models.vae import latent_size, make_codec
from lidit_jax.preparation import features, images
from lidit_jax.preparation.share import WHOLE, Share
from lidit_jax.text import llm
from lidit_jax.training.config import Config, DataConfig
from lidit_jax.training.inputs import recipe


def prepare(config: Config, folder: pathlib.Path, share: Share = WHOLE, batch_size: int = 32):
    """Makes the config's data set in `folder`, with a feature store per encoder, or this share of it.

    Raises InputError if the folder holds another recipe's data.
    """
    plan, source = prepare_plan(config, folder)
    images.write(config.data, source, plan, share, batch_size)
    unfinished = images.finish(config.data, plan)
    for encoder in config.encoders:
        features.write(encoder, plan, share, batch_size)
        unfinished += features.finish(encoder, plan)
    report_unfinished(unfinished)


def prepare_plan(config: Config, folder: pathlib.Path) -> tuple[planning.Plan, sources.Source]:
    """Makes the plan of the config's data set, after checking whatever can be checked before."""
    data = config.data
    source = sources.make(data.source, **data.options)
    wanted = planning_recipe(data)
    for size in wanted.bins.sizes:
        latent_size(make_codec(data.codec), size, config.cells)
    for encoder in config.encoders:  # a wrong path is told now, not after a day of pictures
        if not (folder / "features" / encoder.store / "encoder.json").exists():
            llm.check(encoder, llm.default_cache())
    dataset.claim(folder, recipe(config) | {"described": source.describe()})
    return planning.make(source, wanted, folder), source


def merge(config: Config, folder: pathlib.Path):
    """Finishes a data set that other processes wrote; does no piece of it.

    Raises InputError naming the pieces that are missing.
    """
    dataset.claim(folder, recipe(config))
    plan = planning.Plan(folder)
    unfinished = images.finish(config.data, plan)
    for encoder in config.encoders:
        unfinished += features.finish(encoder, plan)
    if unfinished:
        raise errors.InputError(f"{folder} is not complete: {'; '.join(unfinished)}")


def report_unfinished(unfinished: list[str]):
    for line in unfinished:
        print(line)
    if unfinished:
        print("when the other shares are done: the same command with --merge in place of --shard")


def planning_recipe(data: DataConfig) -> planning.Recipe:
    """Returns how the config's source is planned."""
    return planning.Recipe(
        bins=buckets.make_bins(data.bins, data.size, data.bin_step),
        side=min(data.size),
        rules=filters.expand(data.rules),
        pieces=data.shards,
        least=data.min_bin,
        limit=data.limit,
        hold_out=data.hold_out,
        preview=data.preview,
    )


def references(
    config: Config, held_out: bool = False
) -> Iterator[tuple[tuple[str, ...], np.ndarray]]:
    """Yields captions and uint8 picture, at the config's size, of every example that it trains on.

    held_out: those instead that `data.hold_out` keeps from it.
    """
    data, wanted = config.data, planning_recipe(config.data)
    reason = planning.HELD_OUT if held_out else None
    for example in sources.make(data.source, **data.options).piece(0, 1):
        if isinstance(example, Example):
            verdict = planning.judge(example, wanted)
            if verdict.reason == reason:
                yield tuple(c.text for c in verdict.captions), example.picture.pixels(*data.size)
