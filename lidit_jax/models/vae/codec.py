"""A trained KL autoencoder as a codec: pictures of any size and number, a few at a time."""

import functools
import pathlib
from fractions import Fraction

import jax
import numpy as np
from jax.sharding import Mesh

from lidit_jax import errors, sharding
from lidit_jax.models.vae import folder as folders
from lidit_jax.models.vae.kl import AutoencoderKL
from lidit_jax.models.vae.pixels import to_uint8, to_unit
from lidit_jax.models.vae.tiling import tiled

# Limits per device, in pictures and pixels: decoding takes 7 GiB of memory beside the weights.
PICTURES_AT_ONCE = 8
PIXELS_AT_ONCE = 8 * 512**2


class KLCodec:
    """Codec of an autoencoder: a picture's latent is the mean of its posterior, not normalised.

    model: for pictures of 3 channels; its weights go to the devices with the first picture.
    sha256: identifies the weights in a data set's recipe.
    tile: a picture with more pixels than a square of this side is read in such squares, which
      overlap by a quarter. Each has its own statistics and attention, so its latents differ in kind
      from a whole picture's; every bin of the paper's stages is read whole.
    mesh: all its devices hold the weights, and share the pictures; None is one device.
    """

    def __init__(
        self, model: AutoencoderKL, sha256: str, tile: int = 1024, mesh: Mesh | None = None
    ):
        config = model.config
        if (config.in_channels, config.out_channels) != (3, 3):
            raise errors.InputError(
                f"the VAE maps {config.in_channels} channels to {config.out_channels}; "
                "want one for RGB pictures, 3 to 3"
            )
        self.mesh, self._given = mesh or sharding.one_device(), model
        self.sha256, self.tile = sha256, tile
        self.downsample, self.channels = config.downsample, config.latent_channels

    @functools.cached_property
    def model(self) -> AutoencoderKL:
        """The autoencoder, on every device of the mesh."""
        return jax.device_put(self._given, sharding.replicated(self.mesh))

    def on(self, mesh):
        return KLCodec(self._given, self.sha256, self.tile, mesh)

    def encode(self, images_BxHxWx3):
        return self._run(_encode, images_BxHxWx3, self.channels, Fraction(1, self.downsample))

    def decode(self, latents_BxHxWxC):
        scale = Fraction(self.downsample)
        if self._is_whole(latents_BxHxWxC, scale):
            return self._run(_decode_uint8, latents_BxHxWxC, 3, scale)
        return np.asarray(to_uint8(self._run(_decode, latents_BxHxWxC, 3, scale)))

    def identity(self):
        return {"name": "kl", "hash": self.sha256}

    def _is_whole(self, x_BxHxWxI, scale) -> bool:
        """Whether x, whose cells have `scale` pixels a side (at least one), needs no tiles."""
        return _pixels(x_BxHxWxI, scale) <= self.tile**2

    def _run(self, fn, x_BxHxWxI, channels, scale):
        """Returns fn(model, x) as numpy, a few pictures at a time, in tiles if they are large."""
        x_BxHxWxI, run = np.asarray(x_BxHxWxI), functools.partial(self._on_rows, fn)
        if not self._is_whole(x_BxHxWxI, scale):
            tile = self.tile // max(1, int(scale))
            run = functools.partial(
                tiled, run, channels=channels, tile=tile, overlap=tile // 4, scale=scale
            )
        pixels = min(_pixels(x_BxHxWxI, scale), self.tile**2)
        at_once = min(PICTURES_AT_ONCE, max(1, PIXELS_AT_ONCE // pixels))
        at_once *= sharding.batch_parts(self.mesh)
        starts = range(0, len(x_BxHxWxI), at_once)
        return np.concatenate([run(x_BxHxWxI[first : first + at_once]) for first in starts])

    def _on_rows(self, fn, x_BxHxWxI):
        """Returns fn(model, x) as numpy, the rows split over the mesh, padded with the last one."""
        count, parts = len(x_BxHxWxI), sharding.batch_parts(self.mesh)
        filled = np.concatenate([x_BxHxWxI, x_BxHxWxI[-1:].repeat(-count % parts, 0)])
        placed = jax.device_put(filled, sharding.batch_sharding(self.mesh))
        return np.asarray(fn(self.model, placed, self.mesh))[:count]


def _pixels(x_BxHxWxI, scale) -> int:
    """Returns the pixels of a picture: x itself, or what a decoder makes of it."""
    _, H, W, _ = x_BxHxWxI.shape
    return H * W * max(1, int(scale)) ** 2


@functools.partial(jax.jit, static_argnames="mesh")
def _encode(model, images_BxHxWx3, mesh):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):  # for `sharding.split_batch`
        return model.encode(to_unit(images_BxHxWx3))[0]


@functools.partial(jax.jit, static_argnames="mesh")
def _decode(model, latents_BxHxWxC, mesh):
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return model.decode(latents_BxHxWxC)


@functools.partial(jax.jit, static_argnames="mesh")
def _decode_uint8(model, latents_BxHxWxC, mesh):
    return to_uint8(_decode(model, latents_BxHxWxC, mesh))


def from_folder(folder: pathlib.Path) -> KLCodec:
    """Returns the codec of a folder in diffusers' layout; an unchanged folder is read only once.

    Raises InputError as `folder.load` does.
    """
    found = folders.locate(folder).resolve()
    stamps = tuple((found / n).stat().st_mtime_ns for n in (folders.CONFIG, folders.WEIGHTS))
    return _from_folder(found, stamps)


@functools.lru_cache(maxsize=2)
def _from_folder(found: pathlib.Path, stamps: tuple[int, ...]) -> KLCodec:
    return KLCodec(folders.load(found), folders.digest(found))
