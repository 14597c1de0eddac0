"""Pictures <-> latents. A codec turns uint8 pictures into raw latents and back.

pixels         the picture is its own latent
numbers        a stand-in for a VAE, known by its numbers
codec          a trained KL autoencoder as a codec: jitted, tiled for large pictures
kl             the autoencoder of latent diffusion, a network
blocks         the parts of that network
folder         that network <-> a folder in the layout of diffusers
tensors        a safetensors file <-> named arrays
tiling         a function of large pictures, from a function of tiles
posterior      the Gaussian of the encoder's mean and log-variance
perceptual     LPIPS: how different two pictures look
discriminator  PatchGAN: which patches look generated

The rest of the project sees `Codec`; the last three are for training an autoencoder.
"""

import pathlib
from typing import Protocol

from jax.sharding import Mesh

from lidit_jax import errors
from lidit_jax.batch import Array
from lidit_jax.models.vae import codec as kl_codec
from lidit_jax.models.vae import folder, numbers
from lidit_jax.models.vae.pixels import Pixels


class Codec(Protocol):
    """The interface of a VAE for data preparation and generation.

    downsample: pixels per latent cell and side; channels: latent channels.
    """

    downsample: int
    channels: int

    def encode(self, images_BxHxWx3: Array) -> Array:
        """uint8 pictures -> raw f32 latents [B, H/downsample, W/downsample, channels]."""

    def decode(self, latents_BxHxWxC: Array) -> Array:
        """Raw latents -> uint8 pictures."""

    def on(self, mesh: Mesh) -> "Codec":
        """The same codec with its weights on every device of the mesh, which splits its rows."""

    def identity(self) -> dict:
        """What a recipe records and a reader compares: name and hash of the weights."""


MOST_PIXELS = 8192 * 8192  # of a picture: more is a mistake
CODECS = {"pixels": Pixels}


def make_codec(name: str) -> Codec:
    """Returns the codec of that name, or the KL autoencoder in the folder of that name.

    "latents:8x16" is a stand-in for a VAE with 16 channels and a downsampling of 8.
    Raises InputError if it is none of these, or if the folder's autoencoder cannot be used.
    """
    if name in CODECS:
        return CODECS[name]()
    if stand_in := numbers.parse(name):
        return stand_in
    if name and pathlib.Path(name).expanduser().is_dir():
        return kl_codec.from_folder(pathlib.Path(name).expanduser())
    raise errors.InputError(
        f"{errors.unknown_name('codec', name, CODECS)}; or name a folder that has "
        f"{folder.CONFIG} and {folder.WEIGHTS}, as diffusers saves an AutoencoderKL (if a run's "
        "VAE is elsewhere on this machine, use --vae or Generator(vae=...))"
    )


def latent_size(
    codec: Codec, size: tuple[int, int], patch: int = 1, by: str = "patch"
) -> tuple[int, int, int]:
    """Returns the latent (H, W, C) of a picture of `size` = (height, width) in pixels.

    patch: must divide the latent's sides; by: what decides it, for the error message.
    Raises InputError, naming sizes that work, if VAE and patch together do not divide the size, or
    if no device could hold the picture.
    """
    unit = patch * codec.downsample
    if size[0] * size[1] > MOST_PIXELS:
        raise errors.InputError(
            f"picture size {size[0]}x{size[1]} has more than {MOST_PIXELS:,} pixels; "
            f"use a smaller one"
        )
    for side in size:
        if side < 1 or side % unit:
            near = sorted({max(side // unit, 1) * unit, (side // unit + 1) * unit})
            raise errors.InputError(
                f"picture size {size[0]}x{size[1]}: {side} is not divisible by {unit} "
                f"({by} {patch} x VAE {codec.downsample}); use {' or '.join(map(str, near))}"
            )
    return (size[0] // codec.downsample, size[1] // codec.downsample, codec.channels)
