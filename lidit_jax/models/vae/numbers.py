"""A stand-in for a VAE, with its numbers alone: enough to plan a run and to measure its speed."""

import re

from lidit_jax import errors


class Numbers:
    """A stand-in for a VAE, which can neither encode nor decode.

    downsample: pixels per latent cell and side; channels: latent channels.
    """

    def __init__(self, downsample: int, channels: int):
        self.downsample, self.channels = downsample, channels

    def encode(self, images_BxHxWx3):
        raise self._absent()

    def decode(self, latents_BxHxWxC):
        raise self._absent()

    def on(self, mesh):
        return self

    def identity(self):
        raise self._absent()

    def _absent(self) -> errors.InputError:
        return errors.InputError(
            f"data.codec names no VAE, only its numbers; give the folder of a VAE with "
            f"{self.channels} channels and a downsampling of {self.downsample}, as diffusers saves "
            f"an AutoencoderKL"
        )


def parse(name: str) -> Numbers | None:
    """Returns the stand-in for "latents:8x16" (downsample x channels), or None for another name."""
    found = re.fullmatch(r"latents:([1-9]\d*)x([1-9]\d*)", name)
    return Numbers(int(found[1]), int(found[2])) if found else None
