"""The numbers of a VAE that is not here fix the latents' size, and nothing can be made with them."""

import numpy as np
import pytest

from lidit_jax.errors import InputError
from lidit_jax.models import vae


def test_its_numbers_fix_the_latents_size():
    assert vae.latent_size(vae.make_codec("latents:8x16"), (256, 512), 2) == (32, 64, 16)


@pytest.mark.parametrize(
    "use",
    [
        lambda codec: codec.encode(np.zeros((1, 8, 8, 3), np.uint8)),
        lambda codec: codec.decode(np.zeros((1, 1, 1, 16), np.float32)),
        lambda codec: codec.identity(),
    ],
)
def test_what_needs_the_vae_asks_for_its_folder(use):
    with pytest.raises(
        InputError, match="give the folder of a VAE with 16 channels and a downsampling of 8"
    ):
        use(vae.make_codec("latents:8x16"))


@pytest.mark.parametrize("name", ["latents:8", "latents:0x16", "latents:8x16x2"])
def test_other_names_are_no_numbers(name):
    with pytest.raises(InputError, match="unknown codec"):
        vae.make_codec(name)
