"""Pictures <-> latents. A codec turns uint8 pictures into raw latents and back.

`pixels` stores the picture itself, for models small enough to denoise pixels. A learned VAE is
one more class in the table: the rest of the project sees only this protocol.
"""

from typing import Protocol

import jax.numpy as jnp

from lidit_jax import errors
from lidit_jax.batch import Array


class Codec(Protocol):
    """What data preparation and generation know of a VAE.

    downsample: pixels per latent cell and side; channels: latent channels.
    """

    downsample: int
    channels: int

    def encode(self, images_BxHxWx3: Array) -> Array:
        """uint8 pictures -> raw f32 latents [B, H/downsample, W/downsample, channels]."""

    def decode(self, latents_BxHxWxC: Array) -> Array:
        """Raw latents -> uint8 pictures."""

    def identity(self) -> dict:
        """What a recipe records, and a reader compares: name and weights' hash."""


class Pixels:
    """The identity codec: a picture in [-1, 1] is its own latent."""

    downsample = 1
    channels = 3

    def encode(self, images_BxHxWx3):
        return images_BxHxWx3.astype(jnp.float32) / 127.5 - 1.0

    def decode(self, latents_BxHxWxC):
        return jnp.clip(jnp.round((latents_BxHxWxC + 1.0) * 127.5), 0, 255).astype(jnp.uint8)

    def identity(self):
        return {"name": "pixels"}


CODECS = {"pixels": Pixels}


def make_codec(name: str) -> Codec:
    """Returns the codec of that name; InputError lists the known ones."""
    if name not in CODECS:
        raise errors.unknown_name("codec", name, CODECS)
    return CODECS[name]()


def latent_size(codec: Codec, size: tuple[int, int], patch: int = 1) -> tuple[int, int, int]:
    """Returns the latent (H, W, C) of a picture of `size` = (height, width) in pixels.

    Raises InputError, naming sizes that work, if VAE and patch together do not divide the size.
    """
    unit = patch * codec.downsample
    for side in size:
        if side < 1 or side % unit:
            near = sorted({max(side // unit, 1) * unit, (side // unit + 1) * unit})
            raise errors.InputError(
                f"picture size {size[0]}x{size[1]}: {side} does not divide by {unit} "
                f"(patch {patch} x VAE {codec.downsample}); use {' or '.join(map(str, near))}"
            )
    return (size[0] // codec.downsample, size[1] // codec.downsample, codec.channels)
