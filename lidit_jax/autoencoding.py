"""A trained VAE: export to diffusers' format, and reconstruction of pictures."""

import dataclasses
import itertools
import pathlib
from collections.abc import Iterable

import numpy as np
from flax import nnx
from PIL import Image

from lidit_jax import errors, files
from lidit_jax.data import records
from lidit_jax.data.dataset import Dataset
from lidit_jax.evaluation.pictures import MANIFEST
from lidit_jax.models.vae import folder, make_codec
from lidit_jax.models.vae.kl import AutoencoderKL
from lidit_jax.moments import Moments
from lidit_jax.training.trained import open_trained

SHOWN = 16  # pictures in grid.png
BATCH = 16
MEASURED = 256  # pictures that a VAE's units are measured on


def export(
    workdir: pathlib.Path,
    out: pathlib.Path,
    data: pathlib.Path | None = None,
    step: int | None = None,
) -> int:
    """Writes the EMA of a VAE's run to `out` as diffusers saves an AutoencoderKL; returns its step.

    data: a data set of pixels, such as the one that the VAE was trained on. The config's
      shift_factor and scaling_factor are then the mean and 1 / std of the latents of up to MEASURED
      of its pictures, which programs that read them expect (nothing here does); without `data` they
      are 0 and 1.
    step: of the checkpoint; None uses the last.

    Raises InputError if `workdir` holds no trained VAE, if `data` holds no pixels, or if `out` is a
    run or a data set.
    """
    files.check_own_folder(out, "out")
    pixels = _pixels(data) if data else None
    trained = open_trained(workdir, step)
    model = nnx.merge(trained.graphdef, trained.ema, trained.constants).vae
    sample_size = max(trained.config.data.size)
    model.config = dataclasses.replace(model.config, sample_size=sample_size)
    if pixels:
        shift, scaling = _units(model, pixels)
        model.config = dataclasses.replace(model.config, shift_factor=shift, scaling_factor=scaling)
    folder.save(model, out)
    return trained.step


def _pixels(data: pathlib.Path) -> Dataset:
    dataset = Dataset(data)
    if dataset.info["codec"] != "pixels":
        raise errors.InputError(
            f"{data} holds latents of {dataset.info['codec']}; "
            "want a data set of pixels (data.codec=pixels)"
        )
    return dataset


def _units(model: AutoencoderKL, dataset: Dataset) -> tuple[float, float]:
    """Returns the mean and 1 / std of all numbers of the latents of a data set's pictures."""
    encode, found = nnx.jit(lambda model, x: model.encode(x)[0]), Moments(1)
    for row in records.spaced(len(dataset), MEASURED):
        latents = encode(model, dataset.image(row).latent_HxWxC[None])
        found.add(np.asarray(latents)[..., None])
    return float(found.mean_C[0]), float(1 / max(found.std_C[0], np.finfo(np.float32).tiny))


def reconstruct(
    vae: str, pictures: Iterable[tuple[tuple[str, ...], np.ndarray]], out: pathlib.Path
) -> pathlib.Path:
    """Encodes and decodes (captions, uint8 picture) pairs of one size; returns the path of a grid.

    Writes to `out` each decoded picture, its original under the same name in originals/, a manifest
    and grid.png: originals, each with its decoded picture on its right.
    Raises InputError if there is no picture, if the VAE cannot be used, or if `out` is a run or a
    data set.
    """
    files.check_own_folder(out, "out")
    codec, pictures = make_codec(vae), iter(pictures)
    entries: list[dict] = []
    while part := list(itertools.islice(pictures, BATCH)):
        first = len(entries)
        if not entries:
            (out / MANIFEST).unlink(missing_ok=True)  # else it might describe pictures of two VAEs
        originals = np.stack([image for _, image in part])
        filled = np.concatenate([originals, originals[-1:].repeat(BATCH - len(part), 0)])
        decoded = np.asarray(codec.decode(codec.encode(filled)))
        for i, (captions, original) in enumerate(part, first):
            name = f"{i:06d}.png"
            files.write_png(out / "originals" / name, original)
            files.write_png(out / name, decoded[i - first])
            entries.append({"file": name, "prompt": captions[0], "seed": 0})
    if not entries:
        raise errors.InputError("there is no picture to encode, or none that can be decoded")
    files.write_json(out / MANIFEST, {"vae": codec.identity(), "pictures": entries})
    names = [entries[i]["file"] for i in records.spaced(len(entries), SHOWN)]
    paths = [path for name in names for path in (out / "originals" / name, out / name)]
    shown = [np.asarray(Image.open(path)) for path in paths]
    files.write_png(out / "grid.png", files.picture_grid(shown, columns=8))
    return out / "grid.png"
