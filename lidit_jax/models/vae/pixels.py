"""Pixels: uint8 in [0, 255] <-> f32 in [-1, 1], and the codec that does only that."""

import jax.numpy as jnp


def to_unit(images_BxHxWx3):
    """Returns uint8 pictures as f32 in [-1, 1]."""
    return images_BxHxWx3.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x_BxHxWx3):
    """Returns pictures in [-1, 1] as uint8, rounded; values outside are clipped."""
    return jnp.clip(jnp.round((x_BxHxWx3 + 1.0) * 127.5), 0, 255).astype(jnp.uint8)


class Pixels:
    """The identity codec: a picture in [-1, 1] is its own latent."""

    downsample = 1
    channels = 3

    def encode(self, images_BxHxWx3):
        return to_unit(images_BxHxWx3)

    def decode(self, latents_BxHxWxC):
        return to_uint8(latents_BxHxWxC)

    def on(self, mesh):
        return self

    def identity(self):
        return {"name": "pixels"}
