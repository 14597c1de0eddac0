"""OpenMoji in the latent space of a small VAE, at three aspect ratios around 64 x 64 px,
in 18 minutes on 2 CPU cores.

make quickstart_latent
"""

from ml_collections import ConfigDict

from configs import base, quickstart


def get_config(arg: str = "") -> ConfigDict:
    c = quickstart.get_config(arg)
    c.data.options.trim = True
    c.data.bins = "grid33"
    c.data.bin_step = 16  # VAE 8 x patch 2 divides every side
    c.data.min_bin = 32
    c.data.codec = "out/vae_openmoji/vae"
    c.model.patch = 2
    if base.is_smoke(arg):
        c.data.codec = "pixels"
        c.model.patch = 8
    return c
