"""A VAE that is not here, known by its numbers alone: enough to plan a run and to measure its speed."""

import re

from lidit_jax import errors


class Numbers:
    """Stands for a VAE of so many pixels per latent cell and side, and so many latent channels.

    It encodes and decodes nothing.
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
            f"data.codec names no VAE, only its numbers; give the folder of one of {self.channels} channels "
            f"that makes a side {self.downsample} times shorter, as diffusers saves an AutoencoderKL"
        )


def parse(name: str) -> Numbers | None:
    """Returns the stand-in that "latents:8x16" means (downsample x channels), or None for another name."""
    found = re.fullmatch(r"latents:([1-9]\d*)x([1-9]\d*)", name)
    return Numbers(int(found[1]), int(found[2])) if found else None
